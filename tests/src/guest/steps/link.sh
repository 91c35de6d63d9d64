# Brings the network card up.
load net
await '[ -e /sys/class/net/eth0 ]'
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
say net_up=$?
await '[ "$(cat /sys/class/net/eth0/carrier 2>/dev/null)" = 1 ]'
say carrier="$(cat /sys/class/net/eth0/carrier 2>/dev/null)"
