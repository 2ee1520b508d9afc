"""Other hosts: egress rules, probes, checks of our public address, certificates, syslog."""
