# Over the link: sends 1 MiB to a peer and fetches 1 MiB from it.
peer=${peer:-10.0.2.100}
head -c 1048576 /dev/urandom >/tmp/sent
say sent_sha256="$(digest /tmp/sent)"
timeout 60 nc "$peer" 4001 </tmp/sent
say sent=$?
timeout 60 nc "$peer" 4002 </dev/null >/tmp/fetched
say fetched_bytes="$(stat -c %s /tmp/fetched)"
say fetched_sha256="$(digest /tmp/fetched)"
# Its interrupts, and how many of its lines are messages.
say net_interrupts="$(awk '/eth0/ { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }' /proc/interrupts)"
say net_messages="$(grep eth0 /proc/interrupts | grep -c MSI)"
