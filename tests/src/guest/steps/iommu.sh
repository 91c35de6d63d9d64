# Loads the IOMMU's driver and reports what becomes of the devices behind it.
load iommu
await '[ -e /sys/class/iommu/virtio0 ] || ls /sys/class/iommu | grep -q .'
say iommu_default="$(dmesg | sed -n 's/.*iommu: Default domain type: \([A-Za-z]*\).*/\1/p')"
say iommu_input_bits="$(dmesg | sed -n 's/.*virtio_iommu .* input address: \([0-9]*\) bits.*/\1/p')"
say iommu_groups="$(dmesg | grep -c 'Adding to iommu group')"
say iommu_types="$(cat /sys/kernel/iommu_groups/*/type | sort -u | tr '\n' ,)"
