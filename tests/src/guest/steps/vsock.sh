# Sends a megabyte to the host by a socket, and gets it back.
load vsock
head -c 1048576 /dev/urandom >/tmp/sent
nested vsock-send 2 5000 </tmp/sent >/tmp/echo
say vsock_status=$?
say vsock_same="$(cmp -s /tmp/sent /tmp/echo && echo 1 || echo 0)" \
    vsock_bytes="$(stat -c %s /tmp/echo)"
