//! Ports over pseudo-terminals and pipes, as the kernel of this machine gives them.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Instant;

use eyas_shared::link::{DEFAULT_TERMS, Endpoint, LinkError, State};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::*;

/// Longest that a call may take beyond its limit.
const OVERRUN: Duration = Duration::from_millis(100);

/// A machine that computes something else at the same time may hold one try back by more, and
/// hardly all of so many.
const N_TRIES: usize = 20;

/// For what must happen soon, however busy the machine is.
const GRACE: Duration = Duration::from_secs(20);

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

/// The longest of some calls on a full port, each with `limit` to wait.
fn longest_call(port: &mut Port, flood: &[u8], limit: Duration) -> Duration {
    let (mut written, mut longest) = (0, Duration::ZERO);
    let mut timed = |call: &mut dyn FnMut() -> usize| {
        let began = Instant::now();
        let n = call();
        longest = longest.max(began.elapsed());
        n
    };
    for _ in 0..5 {
        written += timed(&mut || port.write(&flood[written..]).unwrap());
        timed(&mut || usize::from(port.wait(true, None, limit).unwrap().read));
        timed(&mut || port.read(&mut [0; 64]).unwrap());
    }
    assert!(written < flood.len(), "the port took a megabyte");
    longest
}

/// The one test here that asserts a time: the time limit is what these calls promise.
#[test]
fn no_call_outlasts_its_limit_on_a_full_port_that_nobody_reads() {
    let (_master, path) = pty();
    let mut port = Port::open(&path, BASE_BAUD).unwrap();
    let flood = vec![0x55; 1 << 20];
    let limit = Duration::from_millis(50);
    let mut tries = (0..N_TRIES).map(|_| longest_call(&mut port, &flood, limit));
    let in_time = tries.find(|longest| *longest <= limit + OVERRUN);
    println!("longest call {in_time:?} with a limit of {limit:?}, {OVERRUN:?} more are allowed");
    assert!(in_time.is_some(), "{N_TRIES} tries took longer");
}

/// The same for a step of a session, which writes, waits and reads.
#[test]
fn no_step_outlasts_its_limit_on_a_full_port_that_nobody_reads() {
    let (_master, path) = pty();
    let mut port = Port::open(&path, BASE_BAUD).unwrap();
    let flood = vec![0x55; 1 << 20];
    assert!(port.write(&flood).unwrap() < flood.len());
    let mut driver = Driver::new(port);
    let mut endpoint = Endpoint::host(1, DEFAULT_TERMS, GRACE, driver.now());
    let limit = Duration::from_millis(50);
    let mut step = || {
        let began = Instant::now();
        driver.step(&mut endpoint, None, limit).unwrap();
        began.elapsed()
    };
    let mut tries = (0..N_TRIES).map(|_| step().max(step()));
    let in_time = tries.find(|longest| *longest <= limit + OVERRUN);
    println!("longest step {in_time:?} with a limit of {limit:?}, {OVERRUN:?} more are allowed");
    assert!(in_time.is_some(), "{N_TRIES} tries took longer");
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

#[test]
fn what_the_system_says_of_a_name_is_told_as_the_user_knows_it() {
    let named = |errno| open_fault(Path::new("/dev/ttyUSB0"), errno).to_string();
    for denied in [Errno::ACCESS, Errno::PERM] {
        assert_eq!(
            named(denied),
            "no permission to open the port `/dev/ttyUSB0`"
        );
    }
    for absent in [Errno::NOENT, Errno::NXIO, Errno::NODEV] {
        assert_eq!(named(absent), "there is no port `/dev/ttyUSB0`");
    }
    assert!(named(Errno::BUSY).contains("is in use"));
    assert!(matches!(
        open_fault(Path::new("x"), Errno::IO),
        PortError::System { action: "open", .. }
    ));
}
