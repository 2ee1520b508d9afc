# What receiver.conf and receiver-push.conf say, for one receiver on the same machine as nginx.
s/10\.0\.0\.11:8000/127.0.0.1:8000/
/10\.0\.0\.12:8000/d
# The console on a port of its own, which the firewall closes to the world.
s/10\.0\.0\.5:443/8443/
# There is no second one to offer a push to: it waits while receiver restarts.
s/^\(proxy_read_timeout  *\)2s/\130s/
s/^\(proxy_next_upstream_timeout  *\)5s/\160s/
