# Reads the first 4 MiB of the disk.
load disk
disk=
await '[ -b /dev/sda ] && disk=/dev/sda || { [ -b /dev/nvme0n1 ] && disk=/dev/nvme0n1; }'
say disk="$disk"
say disk_sha256="$(dd if="$disk" bs=1M count=4 2>/dev/null | digest)"
say disk_interrupts="$(awk '/ahci|nvme/ { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i } END { print sum + 0 }' /proc/interrupts)"
say bounces="$(log_has 'system is using DMA bounce buffers')"
