"""The alarms: what is wrong, said once to whoever has to get up, and once more when it is over."""
