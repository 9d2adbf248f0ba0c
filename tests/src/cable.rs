//! A serial cable between two programs: two pseudo-terminals and somebody who carries the
//! bytes, counts them, and does to them what a test wants. Ends that have set two speeds
//! hear noise, as on a wire.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

/// How often the carrier looks whether it should end.
const STEP: Duration = Duration::from_millis(20);

/// How long it holds bytes that nobody takes.
const HOLD: Duration = Duration::from_millis(300);

/// What a test wants, and what has passed.
#[derive(Default)]
struct Control {
    stop: AtomicBool,
    cut: AtomicBool,
    /// One byte of so many is damaged; 0 damages none.
    damage_every: AtomicU64,
    /// Above this speed the cable carries noise; 0 carries all.
    top_speed: AtomicU64,
    /// The highest speed at which bytes arrived.
    fastest: AtomicU64,
    /// Bytes that were carried to the board, and to the host.
    passed: Mutex<[u64; 2]>,
    news: Condvar,
}

impl Control {
    fn passed(&self) -> MutexGuard<'_, [u64; 2]> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cable. Dropping it pulls both plugs.
pub struct Cable {
    /// The host's port.
    pub host: PathBuf,
    /// The board's port.
    pub board: PathBuf,
    control: Arc<Control>,
    carriers: Vec<JoinHandle<()>>,
}

fn plug() -> (OwnedFd, PathBuf) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("access to it");
    unlockpt(&master).expect("it can be opened");
    fcntl_setfl(&master, OFlags::NONBLOCK).expect("it does not block");
    let name = ptsname(&master, Vec::new()).expect("it has a name");
    let name = name.into_string().expect("names of ports are text");
    (master, PathBuf::from(name))
}

fn wait(fd: &OwnedFd, flags: PollFlags, at_most: Duration) {
    let limit = Timespec {
        tv_sec: 0,
        tv_nsec: at_most.subsec_nanos().into(),
    };
    let _ = poll(&mut [PollFd::new(fd, flags)], Some(&limit));
}

/// Nobody has the port open: waits without looking at it, which would return at once.
fn pause() {
    let limit = Timespec {
        tv_sec: 0,
        tv_nsec: STEP.subsec_nanos().into(),
    };
    let _ = poll(&mut [], Some(&limit));
}

/// The speed that the program at a pseudo-terminal has set.
fn speed(plug: &OwnedFd) -> u64 {
    tcgetattr(plug).map_or(0, |settings| settings.output_speed().into())
}

/// Whether no program has set a pseudo-terminal up: it would echo, which a cable that nobody
/// listens at does not.
fn is_untouched(plug: &OwnedFd) -> bool {
    tcgetattr(plug).is_ok_and(|settings| settings.local_modes.contains(LocalModes::ECHO))
}

/// What bytes sound like at another speed: fewer, and others.
fn garble(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().step_by(2).map(|byte| byte ^ 0xa5).collect()
}

fn carry(from: &OwnedFd, to: &OwnedFd, control: &Control, is_to_board: bool) {
    let mut buffer = [0; 4096];
    let mut n_carried = 0_u64;
    while !control.stop.load(Ordering::Relaxed) {
        wait(from, PollFlags::IN, STEP);
        let bytes = match rustix::io::read(from, &mut buffer) {
            Ok(n) if n > 0 => &mut buffer[..n],
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
            _ => {
                pause();
                continue;
            }
        };
        let every = control.damage_every.load(Ordering::Relaxed);
        for byte in bytes.iter_mut() {
            n_carried += 1;
            if every > 0 && n_carried.is_multiple_of(every) {
                *byte ^= 0x10;
            }
        }
        let (sent_at, heard_at) = (speed(from), speed(to));
        let top_speed = control.top_speed.load(Ordering::Relaxed);
        let is_heard = sent_at == heard_at && (top_speed == 0 || sent_at <= top_speed);
        if control.cut.load(Ordering::Relaxed) || is_untouched(to) {
            // Nothing arrives.
        } else if is_heard {
            control.fastest.fetch_max(sent_at, Ordering::Relaxed);
            hand_over(to, bytes, control);
        } else {
            hand_over(to, &garble(bytes), control);
        }
        control.passed()[usize::from(!is_to_board)] += bytes.len() as u64;
        control.news.notify_all();
    }
}

/// Writes what is taken; a port that takes nothing for long loses the rest, as a real one.
fn hand_over(to: &OwnedFd, bytes: &[u8], control: &Control) {
    let mut rest = bytes;
    let mut held = Duration::ZERO;
    while !rest.is_empty() && held < HOLD && !control.stop.load(Ordering::Relaxed) {
        match rustix::io::write(to, rest) {
            Ok(n) => rest = &rest[n..],
            Err(rustix::io::Errno::AGAIN) => {
                pause();
                held += STEP;
            }
            Err(_) => return,
        }
    }
}

impl Cable {
    /// Plugs in a cable.
    ///
    /// # Panics
    /// If the system has no pseudo-terminals.
    #[must_use]
    pub fn new() -> Self {
        let ((host_end, host), (board_end, board)) = (plug(), plug());
        let ends = Arc::new((host_end, board_end));
        let control = Arc::new(Control::default());
        let carrier = |is_to_board: bool| {
            let (ends, control) = (Arc::clone(&ends), Arc::clone(&control));
            std::thread::spawn(move || match is_to_board {
                true => carry(&ends.0, &ends.1, &control, true),
                false => carry(&ends.1, &ends.0, &control, false),
            })
        };
        let carriers = vec![carrier(true), carrier(false)];
        Self {
            host,
            board,
            control,
            carriers,
        }
    }

    /// Damages one byte of so many from now on; 0 damages none.
    pub fn damage_every(&self, n_bytes: u64) {
        self.control.damage_every.store(n_bytes, Ordering::Relaxed);
    }

    /// Carries only noise at higher speeds from now on.
    pub fn limit_speed(&self, baud: u32) {
        self.control.top_speed.store(baud.into(), Ordering::Relaxed);
    }

    /// The highest speed at which bytes have arrived, in baud.
    #[must_use]
    pub fn fastest(&self) -> u64 {
        self.control.fastest.load(Ordering::Relaxed)
    }

    /// Loses everything from now on, or nothing any more.
    pub fn cut(&self, is_cut: bool) {
        self.control.cut.store(is_cut, Ordering::Relaxed);
    }

    /// Bytes that went to the board.
    #[must_use]
    pub fn bytes_to_board(&self) -> u64 {
        self.control.passed()[0]
    }

    /// Bytes that went to the host.
    #[must_use]
    pub fn bytes_to_host(&self) -> u64 {
        self.control.passed()[1]
    }

    /// Waits until so many bytes went to the board in all; false after a minute without.
    #[must_use]
    pub fn wait_for_bytes(&self, n_bytes: u64) -> bool {
        self.wait(0, n_bytes)
    }

    /// Waits until so many bytes went to the host in all; false after a minute without.
    #[must_use]
    pub fn wait_for_bytes_to_host(&self, n_bytes: u64) -> bool {
        self.wait(1, n_bytes)
    }

    fn wait(&self, direction: usize, n_bytes: u64) -> bool {
        let limit = Duration::from_secs(60);
        let is_short = |passed: &mut [u64; 2]| passed[direction] < n_bytes;
        let waited =
            { &self.control.news }.wait_timeout_while(self.control.passed(), limit, is_short);
        waited.is_ok_and(|(_, timeout)| !timeout.timed_out())
    }
}

impl Default for Cable {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
        for carrier in self.carriers.drain(..) {
            let _ = carrier.join();
        }
    }
}
