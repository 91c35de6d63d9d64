# Brings the network card up, then sends 1 MiB to a peer and fetches 1 MiB from it.
load net
peer=10.0.2.100
await '[ -e /sys/class/net/eth0 ]'
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
say net_up=$?
await '[ "$(cat /sys/class/net/eth0/carrier 2>/dev/null)" = 1 ]'
say carrier="$(cat /sys/class/net/eth0/carrier 2>/dev/null)"
head -c 1048576 /dev/urandom >/tmp/sent
say sent_sha256="$(digest /tmp/sent)"
timeout 60 nc "$peer" 4001 </tmp/sent
say sent=$?
timeout 60 nc "$peer" 4002 </dev/null >/tmp/fetched
say fetched_bytes="$(stat -c %s /tmp/fetched)"
say fetched_sha256="$(digest /tmp/fetched)"
