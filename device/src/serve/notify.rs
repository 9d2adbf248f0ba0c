//! Tells systemd that the service is ready, alive, and about to end.
//!
//! Does nothing where systemd did not ask for it (`NOTIFY_SOCKET`).

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager.
pub(super) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// From the environment that the service manager gave this program.
    pub(super) fn from_environment() -> Self {
        Self(Self::connect())
    }

    fn connect() -> Option<(UnixDatagram, SocketAddr)> {
        let name = env::var_os("NOTIFY_SOCKET")?;
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok()?,
            _ => SocketAddr::from_pathname(&name).ok()?,
        };
        let socket = UnixDatagram::unbound().ok()?;
        // A manager that does not read must not hold up the work.
        socket.set_nonblocking(true).ok()?;
        Some((socket, address))
    }

    /// Sends a state such as `READY=1`; one that does not arrive is not missed.
    pub(super) fn say(&self, state: &str) {
        if let Some((socket, address)) = &self.0 {
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }

    /// How often the service manager wants a sign of life, halved as it asks for.
    pub(super) fn watchdog_interval(&self) -> Option<Duration> {
        self.0.as_ref()?;
        let micros: u64 = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        Some(Duration::from_micros(micros / 2))
    }
}
