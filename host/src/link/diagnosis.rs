//! What a fault of a link means, and what helps: for people who stand beside a board.

use eyas_device::port::PortError;
use eyas_shared::link::LinkError;
use eyas_shared::link::message::Code;
use eyas_shared::link::packet::VERSIONS;

use super::ClientError;

/// So many bytes that are no frame are something that talks, not a glitch.
const SOME_NOISE: u64 = 16;

/// A fault with its cause and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Stable name, for programs.
    pub name: &'static str,
    /// What is the matter.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

fn diagnosis(name: &'static str, cause: impl Into<String>, remedy: impl Into<String>) -> Diagnosis {
    Diagnosis {
        name,
        cause: cause.into(),
        remedy: remedy.into(),
    }
}

/// The board was found at another speed than it was looked for at.
#[must_use]
pub fn of_other_speed(asked: u32, found: u32) -> Diagnosis {
    diagnosis(
        "wrong-baud",
        format!("the board listens at {found} baud, not at {asked}"),
        format!("name it with --baud {found}, or start the board's service with --baud {asked}"),
    )
}

/// What a fault means, as far as it tells.
#[must_use]
pub fn of_error(err: &ClientError) -> Option<Diagnosis> {
    match err {
        ClientError::Port(port) => Some(of_port(port)),
        ClientError::Link { source, .. } => of_link(*source),
        ClientError::Ambiguous { .. } => Some(diagnosis(
            "several-ports",
            "more than one serial port can be used",
            "name the board's with --port; `eyas ports` lists them",
        )),
        ClientError::NoPort => Some(diagnosis(
            "no-port",
            "no serial port can be used",
            "plug in the cable; `eyas ports` says why a port can not be used",
        )),
        ClientError::Slow { .. } => Some(diagnosis(
            "slow",
            "the link works and the board's program is busy or stuck",
            "look at the board's log; restart its service",
        )),
        ClientError::Refused { code, .. } => of_refusal(*code),
        ClientError::Message(_) | ClientError::Answer { .. } => Some(diagnosis(
            "other-protocol",
            "host and board understand different messages",
            "install the same version of Eyas on both",
        )),
        ClientError::Command { .. } => Some(diagnosis(
            "command",
            "the command that should lead to the board can not be started",
            "try it in a shell",
        )),
        _ => None,
    }
}

fn of_port(err: &PortError) -> Diagnosis {
    match err {
        PortError::Absent { .. } => diagnosis(
            "absent",
            "there is no port of this name",
            "`eyas ports` lists those that are there; plug in the cable, or name the one under \
             /dev/serial/by-id, which stays",
        ),
        PortError::Denied { .. } => diagnosis(
            "permission",
            "this user may not open serial ports",
            "add the user to the group `dialout` (`sudo usermod -aG dialout $USER`) and log in \
             again",
        ),
        PortError::Busy { .. } => diagnosis(
            "busy",
            "another program has the port",
            "end that program (a terminal such as minicom or screen, a console of the system, \
             ModemManager)",
        ),
        PortError::NotAPort { .. } => diagnosis(
            "no-serial-port",
            "the name is that of something else",
            "`eyas ports` lists serial ports",
        ),
        PortError::Setup { .. } => diagnosis(
            "speed",
            "the port can not take this speed",
            "take another --baud",
        ),
        PortError::Lost { .. } => diagnosis(
            "lost",
            "the port is gone: unplugged, or the program behind it ended",
            "check the plug, the board's power, and the command that leads to it",
        ),
        _ => diagnosis(
            "system",
            "the system refuses",
            "the message above says what it answered",
        ),
    }
}

fn of_link(err: LinkError) -> Option<Diagnosis> {
    Some(match err {
        LinkError::NoAnswer { noise_bytes, .. } if noise_bytes >= SOME_NOISE => diagnosis(
            "noise",
            "bytes arrive, but no whole frame: the board is set to another speed, a console or \
             another program talks on the line, or the line is very noisy",
            "take the --baud that the board serves at (115200 unless it was started with \
             another); end the console on the board's port; check ground and length of the cable",
        ),
        LinkError::NoAnswer { .. } => diagnosis(
            "no-reply",
            "nothing arrives",
            "check that the board has power and serves this port (`eyas-device serve`), that \
             transmit and receive are crossed, that this is the right port, and that --baud is the \
             speed that the board listens at; `eyas doctor` looks for it at the others",
        ),
        LinkError::Silent => diagnosis(
            "silent",
            "the link worked and then fell silent",
            "check the plug and the board's power",
        ),
        LinkError::Restarted => diagnosis(
            "restarted",
            "the board's program was started anew, or another host has begun to talk to it",
            "try again",
        ),
        LinkError::Version { theirs } if theirs.newest < VERSIONS.oldest => diagnosis(
            "old-board",
            "the board's program is too old for this host",
            "install a newer `eyas-device` on the board",
        ),
        LinkError::Version { .. } => diagnosis(
            "old-host",
            "this host's program is too old for the board",
            "install a newer `eyas` on this machine",
        ),
        _ => return None,
    })
}

fn of_refusal(code: Code) -> Option<Diagnosis> {
    Some(match code {
        Code::NoStore => diagnosis(
            "no-store",
            "the board serves fixed files",
            "start its service with --store, on a folder that `eyas-device init` has set up",
        ),
        Code::NoRoom => diagnosis(
            "no-room",
            "the board has no room for the file",
            "free space on the board, or take a smaller gallery",
        ),
        Code::OtherContent => diagnosis(
            "other-content",
            "the file changed while it was sent, or the board's disk is damaged",
            "push it again",
        ),
        Code::Unknown => diagnosis(
            "old-board",
            "the board's program does not know this request",
            "install a newer `eyas-device` on the board",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use eyas_shared::link::packet::Versions;

    use super::*;

    fn name_of(source: LinkError) -> &'static str {
        let place = "`/dev/ttyUSB0`".to_owned();
        of_error(&ClientError::Link { place, source }).unwrap().name
    }

    #[test]
    fn silence_noise_and_versions_are_told_apart() {
        let no_answer = |noise_bytes| LinkError::NoAnswer {
            waited: Duration::from_secs(2),
            noise_bytes,
            damaged: noise_bytes / 10,
        };
        let version = |oldest, newest| LinkError::Version {
            theirs: Versions { oldest, newest },
        };
        let named = [
            (no_answer(0), "no-reply"),
            (no_answer(3), "no-reply"),
            (no_answer(500), "noise"),
            (LinkError::Silent, "silent"),
            (LinkError::Restarted, "restarted"),
            (version(0, 0), "old-board"),
            (version(9, 9), "old-host"),
        ];
        for (err, name) in named {
            assert_eq!(name_of(err), name);
        }
    }

    #[test]
    fn every_fault_of_a_port_has_a_remedy() {
        let path = || "/dev/ttyUSB0".into();
        let faults = [
            PortError::Absent { path: path() },
            PortError::Denied { path: path() },
            PortError::NotAPort { path: path() },
            PortError::Busy {
                path: path(),
                holders: vec!["`minicom` (process 7)".to_owned()],
            },
        ];
        for fault in faults {
            let found = of_error(&ClientError::Port(fault)).unwrap();
            assert!(!found.remedy.is_empty(), "{found:?}");
        }
    }
}
