# Finds an emulated disk.
load block
disk=/dev/vda
await '[ -b $disk ]'
