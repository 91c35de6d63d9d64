# After virtio-net: takes the driver away and brings it back, twice, and the card still works.
for round in 1 2; do
    ifconfig eth0 down
    rmmod virtio_net
    load virtio-net
    await '[ -e /sys/class/net/eth0 ]'
    ifconfig eth0 10.0.3.2 netmask 255.255.255.0 up
    await "ping -c 1 -W 1 10.0.3.1 >/dev/null 2>&1"
    say reload_ping$round=$?
done
