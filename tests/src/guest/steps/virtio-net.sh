# Brings a virtio network card up, moves 1 MiB each way, and tells what was agreed.
load virtio-net
await '[ -e /sys/class/net/eth0 ]'
card=/sys/class/net/eth0
say vnet_mac="$(cat $card/address)" vnet_mtu="$(cat $card/mtu)" \
    vnet_queues="$(ls -d $card/queues/rx-* | wc -l)"
# Bit 0 of the features is the first character.
features=$(cat $card/device/features)
say vnet_csum="${features:0:1}" vnet_tso4="${features:11:1}" vnet_merges="${features:15:1}"
ifconfig eth0 10.0.3.2 netmask 255.255.255.0 up
say vnet_up=$?
await '[ "$(cat /sys/class/net/eth0/carrier 2>/dev/null)" = 1 ]'
peer=10.0.3.1
await "ping -c 1 -W 1 $peer >/dev/null 2>&1"
say vnet_ping=$?
ping -c 5 -A -W 2 -s 8000 $peer >/tmp/pings 2>&1
say vnet_big_pings="$(sed -n 's/.* \([0-9]*\) packets received.*/\1/p' /tmp/pings)"
head -c 1048576 /dev/urandom >/tmp/sent
say sent_sha256="$(digest /tmp/sent)"
timeout 60 nc $peer 4001 </tmp/sent
say sent=$?
timeout 60 nc $peer 4002 </dev/null >/tmp/fetched
say fetched_bytes="$(stat -c %s /tmp/fetched)"
say fetched_sha256="$(digest /tmp/fetched)"
say vnet_bounces="$(log_has 'system is using DMA bounce buffers')"
