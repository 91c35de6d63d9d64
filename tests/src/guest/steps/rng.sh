# Reads from the host's random numbers by way of the guest's driver.
load rng
await 'grep -q virtio_rng /sys/class/misc/hw_random/rng_current'
say rng_current="$(cat /sys/class/misc/hw_random/rng_current)"
head -c 8192 /dev/hwrng >/tmp/first
head -c 8192 /dev/hwrng >/tmp/second
say rng_bytes="$(stat -c %s /tmp/first)" rng_same="$(cmp -s /tmp/first /tmp/second && echo 1 || echo 0)"
say rng_packed="$(gzip -c /tmp/first | wc -c)"
