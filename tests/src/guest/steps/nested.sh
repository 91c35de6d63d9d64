# A program of the guest's drives edu by VFIO, behind the virtual IOMMU.
load vfio
# On x86_64 the virtual IOMMU does not remap interrupts; the guest's host does.
echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
is_edu() { [ "$(cat "$1/vendor" "$1/device" | tr -d '\n')" = 0x12340x11e8 ]; }
edu=$(for device in /sys/bus/pci/devices/*; do is_edu "$device" && basename "$device"; done)
echo vfio-pci >"/sys/bus/pci/devices/$edu/driver_override"
echo "$edu" >/sys/bus/pci/drivers_probe
echo 8 >/proc/sys/vm/nr_hugepages
# What the kernel tells of faults would take its time on the console. Reports still come.
dmesg -n 1
nested "$edu" >/tmp/nested
nested=$?
while read -r line; do say "$line"; done </tmp/nested
say nested=$nested
await 'dmesg | grep -q "page fault from EP"'
say page_faults="$(log_has 'virtio_iommu.*page fault from EP')"
