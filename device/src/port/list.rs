//! Which serial ports there are, by names that stay, and why one can not be used.

use std::fs;
use std::path::{Path, PathBuf};

use serialport::SerialPortType;

use super::{BASE_BAUD, Port, PortError};

/// Where the system keeps names that stay when a cable is plugged elsewhere.
const BY_ID: &str = "/dev/serial/by-id";

/// A port of this machine.
#[derive(Debug)]
pub struct Listed {
    /// Its name in this boot, such as `/dev/ttyUSB0`.
    pub path: PathBuf,
    /// The name that stays, if the system gave it one.
    pub stable: Option<PathBuf>,
    /// Vendor and product number of a USB port.
    pub usb_ids: Option<(u16, u16)>,
    /// What it says of itself.
    pub description: String,
    /// Why it can not be used; none if it can.
    pub fault: Option<PortError>,
}

/// Ports of this machine, sorted by name. Each is opened for a moment to see whether it
/// can be used.
///
/// # Errors
/// If the system does not say.
pub fn list() -> Result<Vec<Listed>, PortError> {
    let ports = serialport::available_ports().map_err(|err| PortError::System {
        action: "list",
        source: std::io::Error::other(err.to_string()),
    })?;
    let mut listed: Vec<Listed> = ports
        .into_iter()
        .map(|port| {
            let path = PathBuf::from(port.port_name);
            let (usb_ids, description) = match port.port_type {
                SerialPortType::UsbPort(usb) => {
                    let texts = [usb.manufacturer, usb.product, usb.serial_number];
                    let texts: Vec<String> = texts.into_iter().flatten().collect();
                    (Some((usb.vid, usb.pid)), texts.join(" "))
                }
                SerialPortType::PciPort => (None, "PCI".to_owned()),
                SerialPortType::BluetoothPort => (None, "Bluetooth".to_owned()),
                SerialPortType::Unknown => (None, String::new()),
            };
            Listed {
                stable: stable_name(&path),
                fault: Port::open(&path, BASE_BAUD).err(),
                path,
                usb_ids,
                description,
            }
        })
        .collect();
    listed.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listed)
}

/// The name of a port that stays when it is plugged elsewhere or others are plugged in.
#[must_use]
pub fn stable_name(path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    let entries = fs::read_dir(BY_ID).ok()?;
    let mut names: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|name| fs::canonicalize(name).is_ok_and(|target| target == real))
        .collect();
    names.sort();
    names.into_iter().next()
}

/// Programs that have a file open, as far as this user may see them.
pub(super) fn holders(path: &Path) -> Vec<String> {
    let Ok(real) = fs::canonicalize(path) else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let number: u32 = process.file_name().to_str()?.parse().ok()?;
            let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
            let is_holder = number != std::process::id()
                && open.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == real));
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            is_holder.then(|| format!("`{}` (process {number})", name.trim()))
        })
        .collect()
}
