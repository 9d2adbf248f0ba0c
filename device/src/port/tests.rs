//! Ports over pseudo-terminals and pipes, as the kernel of this machine gives them.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Instant;

use eyas_shared::link::{DEFAULT_TERMS, Endpoint, LinkError, State};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::*;

/// Longest that a call may take beyond its limit. The contract says 100 ms; a machine that
/// computes something else at the same time may hold the test back by more.
const GRACE: Duration = Duration::from_millis(2000);

/// A pseudo-terminal: the end of whoever simulates the cable, and the port's name.
fn pty() -> (File, PathBuf) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    (File::from(master), PathBuf::from(name.to_str().unwrap()))
}

#[test]
fn bytes_of_all_values_pass_unchanged() {
    let (mut master, path) = pty();
    let mut port = Port::open(&path, BASE_BAUD).unwrap();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(port.write(&all).unwrap(), 256);
    let mut got = [0; 256];
    master.read_exact(&mut got).unwrap();
    assert_eq!(got[..], all);
    master.write_all(&all).unwrap();
    let mut got = Vec::new();
    while got.len() < 256 {
        assert!(port.wait(false, None, GRACE).unwrap().read);
        let mut some = [0; 100];
        let n = port.read(&mut some).unwrap();
        got.extend_from_slice(&some[..n]);
    }
    assert_eq!(got, all);
    assert_eq!(port.read(&mut [0; 8]).unwrap(), 0);
}

/// The one test here that asserts a time: the time limit is what these calls promise.
#[test]
fn no_call_outlasts_its_limit_on_a_full_port_that_nobody_reads() {
    let (_master, path) = pty();
    let mut port = Port::open(&path, BASE_BAUD).unwrap();
    let flood = vec![0x55; 1 << 20];
    let limit = Duration::from_millis(50);
    let (mut written, mut worst) = (0, Duration::ZERO);
    let mut timed = |call: &mut dyn FnMut() -> usize| {
        let began = Instant::now();
        let n = call();
        worst = worst.max(began.elapsed());
        n
    };
    for _ in 0..20 {
        written += timed(&mut || port.write(&flood[written..]).unwrap());
        timed(&mut || usize::from(port.wait(true, None, limit).unwrap().read));
        timed(&mut || port.read(&mut [0; 64]).unwrap());
    }
    assert!(written < flood.len(), "the port took a megabyte");
    println!("longest call {worst:?} with a limit of {limit:?}");
    assert!(worst <= limit + GRACE, "{worst:?}");
}

#[test]
fn a_session_on_a_full_port_ends_by_itself() {
    let (_master, path) = pty();
    let mut driver = Driver::new(Port::open(&path, BASE_BAUD).unwrap());
    let mut endpoint = Endpoint::host(1, DEFAULT_TERMS, Duration::from_millis(300), driver.now());
    while endpoint.state(driver.now()) == State::Opening {
        driver
            .step(&mut endpoint, None, Duration::from_millis(50))
            .unwrap();
    }
    let state = endpoint.state(driver.now());
    assert!(
        matches!(state, State::Lost(LinkError::NoAnswer { .. })),
        "{state:?}"
    );
}

#[test]
fn what_had_arrived_is_read_before_the_end_is_told() {
    let (reader, writer) = std::io::pipe().unwrap();
    let sink = File::options().write(true).open("/dev/null").unwrap();
    let mut port = Port::of_streams(reader.into(), sink.into()).unwrap();
    (&writer).write_all(b"last words").unwrap();
    drop(writer);
    assert!(port.wait(false, None, GRACE).unwrap().read);
    let mut buffer = [0; 64];
    assert_eq!(port.read(&mut buffer).unwrap(), 10);
    assert!(matches!(
        port.read(&mut buffer),
        Err(PortError::Lost { .. })
    ));
}

#[test]
fn a_port_that_is_unplugged_is_lost() {
    let (master, path) = pty();
    let mut port = Port::open(&path, BASE_BAUD).unwrap();
    drop(master);
    assert!(port.wait(false, None, GRACE).unwrap().read);
    let lost = port.read(&mut [0; 8]);
    assert!(matches!(lost, Err(PortError::Lost { .. })), "{lost:?}");
    assert!(matches!(port.write(b"x"), Err(PortError::Lost { .. })));
    let again = Port::open(&path, BASE_BAUD);
    assert!(matches!(
        again,
        Err(PortError::Absent { .. } | PortError::System { .. })
    ));
}

#[test]
fn what_is_no_port_is_refused_by_its_reason() {
    let open = |path: &Path| Port::open(path, BASE_BAUD).err();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    assert!(matches!(open(&file), Some(PortError::NotAPort { .. })));
    assert!(matches!(
        open(folder.path()),
        Some(PortError::NotAPort { .. })
    ));
    let absent = folder.path().join("absent");
    assert!(matches!(open(&absent), Some(PortError::Absent { .. })));
}

#[test]
fn a_port_is_opened_once() {
    let (_master, path) = pty();
    let _port = Port::open(&path, BASE_BAUD).unwrap();
    let second = Port::open(&path, BASE_BAUD).err();
    assert!(matches!(second, Some(PortError::Busy { .. })), "{second:?}");
}
