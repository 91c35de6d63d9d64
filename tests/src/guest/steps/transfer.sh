# Over the link: sends 1 MiB to a peer and fetches 1 MiB from it.
peer=10.0.2.100
head -c 1048576 /dev/urandom >/tmp/sent
say sent_sha256="$(digest /tmp/sent)"
timeout 60 nc "$peer" 4001 </tmp/sent
say sent=$?
timeout 60 nc "$peer" 4002 </dev/null >/tmp/fetched
say fetched_bytes="$(stat -c %s /tmp/fetched)"
say fetched_sha256="$(digest /tmp/fetched)"
