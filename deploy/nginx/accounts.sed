# The receivers of the host name that was asked for, as the map of accounts.conf has them.
s/http:\/\/receivers;/http:\/\/$receivers;/
