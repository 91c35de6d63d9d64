# Finds the emulated disks, and reads each whole.
load block
await '[ -b /dev/vda ]'
disk=/dev/vda
for block in /sys/block/vd*; do
    name=${block##*/}
    say ${name}_sectors="$(cat "$block/size")" ${name}_readonly="$(cat "$block/ro")" \
        ${name}_serial="$(cat "$block/serial")" ${name}_queues="$(ls "$block/mq" | wc -l)"
    say ${name}_sha256="$(digest "/dev/$name")"
done
say block_bounces="$(log_has 'system is using DMA bounce buffers')"
