# Brings up a virtio network card that a daemon of the host serves. `transfer` can come next.
load virtio-net
await '[ -e /sys/class/net/eth0 ]'
ifconfig eth0 10.0.3.2 netmask 255.255.255.0 up
await '[ "$(cat /sys/class/net/eth0/carrier 2>/dev/null)" = 1 ]'
say user_net=$? user_net_mac="$(cat /sys/class/net/eth0/address)"
peer=10.0.3.1
