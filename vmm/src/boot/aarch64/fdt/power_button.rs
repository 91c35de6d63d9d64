//! The power button: a key at an input of a GPIO controller (bindings `arm,pl061` and `gpio-keys`).

use devices::gpio::Gpio;
use iommu::{Gpa, PageRange};
use vm_fdt::{FdtWriter, FdtWriterResult};

use super::{LEVEL_HIGH, PHANDLE_CLOCK, PHANDLE_GPIO, SPI, lines, name, reg};

/// `KEY_POWER` of Linux's input event codes.
const KEY_POWER: u32 = 116;
/// A pin that is high while it is active.
const ACTIVE_HIGH: u32 = 0;

/// Tells of the controller at `gpio`, and of the key.
pub(super) fn write(fdt: &mut FdtWriter, gpio: PageRange<Gpa>) -> FdtWriterResult<()> {
    let node = fdt.begin_node(&name("gpio", gpio))?;
    let compatible = vec!["arm,pl061".to_owned(), "arm,primecell".to_owned()];
    fdt.property_string_list("compatible", compatible)?;
    fdt.property_array_u64("reg", &reg(gpio))?;
    fdt.property_array_u32("interrupts", &[SPI, lines::GPIO, LEVEL_HIGH])?;
    fdt.property_null("gpio-controller")?;
    fdt.property_u32("#gpio-cells", 2)?;
    fdt.property_u32("clocks", PHANDLE_CLOCK)?;
    fdt.property_string("clock-names", "apb_pclk")?;
    fdt.property_phandle(PHANDLE_GPIO)?;
    fdt.end_node(node)?;
    let keys = fdt.begin_node("gpio-keys")?;
    fdt.property_string("compatible", "gpio-keys")?;
    let key = fdt.begin_node("power")?;
    fdt.property_string("label", "Power Button")?;
    fdt.property_u32("linux,code", KEY_POWER)?;
    let pin = u32::from(Gpio::BUTTON);
    fdt.property_array_u32("gpios", &[PHANDLE_GPIO, pin, ACTIVE_HIGH])?;
    fdt.end_node(key)?;
    fdt.end_node(keys)
}
