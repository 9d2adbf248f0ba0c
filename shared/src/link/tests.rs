//! Two ends over a line with faults: everything arrives, bit by bit, in good time.

use std::time::Duration;

use super::endpoint::{DEFAULT_TERMS, Endpoint, LinkError, State};
use super::message::{self, Ask, Code, FileId, FileKind, Reply, Request, Response};
use super::packet::{Ack, Packet, Refusal, Terms, VERSIONS, Versions};
use super::simulate::{Cable, Faults};
use crate::random::Random;

const BAUD: u32 = 921_600;
const PATIENCE: Duration = Duration::from_secs(10);

fn ends(session: u32, now: Duration) -> (Endpoint, Endpoint) {
    let host = Endpoint::host(session, DEFAULT_TERMS, PATIENCE, now);
    (host, Endpoint::board(DEFAULT_TERMS))
}

fn cable(faults: Faults, seed: u64) -> Cable {
    let (host, board) = ends(7, Duration::ZERO);
    Cable::new(host, board, BAUD, faults, seed)
}

fn content(n_bytes: usize) -> Vec<u8> {
    let mut random = Random::new(3).fork("content");
    (0..n_bytes).map(|_| random.bits() as u8).collect()
}

/// Sends `content` from the host to the board; the share of the line's time that it took.
fn push(cable: &mut Cable, content: &[u8]) -> f64 {
    let began = cable.now;
    let (mut written, mut arrived) = (0, Vec::new());
    let mut buffer = [0; 4096];
    let state = cable.run(|host, board, _| {
        written += host.write(&content[written..]);
        loop {
            match board.read(&mut buffer) {
                0 => break,
                n => arrived.extend_from_slice(&buffer[..n]),
            }
        }
        arrived.len() >= content.len()
    });
    assert_eq!(state, State::Open);
    assert!(arrived == content, "what arrived is not what was sent");
    let ideal = 10.0 * content.len() as f64 / f64::from(BAUD);
    ideal / (cable.now - began).as_secs_f64()
}

/// What the line loses, and the share of it that must be left for content.
const MATRIX: [(f64, f64, f64); 6] = [
    (0.0, 0.0, 0.95),
    (1e-6, 0.0, 0.90),
    (1e-5, 0.0, 0.80),
    (1e-4, 0.01, 0.65),
    (1e-4, 0.05, 0.55),
    (1e-3, 0.0, 0.20),
];

/// Seeds of a matrix: `EYAS_LINK_SEEDS`, or a few.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("EYAS_LINK_SEEDS").ok();
    0..asked.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Everything that a line may do, with everything else that it may do.
fn whole_matrix() -> Vec<Faults> {
    let millis = Duration::from_millis;
    let blackouts = [
        None,
        Some((millis(1000), millis(100))),
        Some((millis(4000), millis(2000))),
    ];
    let mut lines = Vec::new();
    for bit_errors in [0.0, 1e-6, 1e-5, 1e-4, 1e-3] {
        for lost_frames in [0.0, 0.01, 0.05] {
            for repeated_frames in [0.0, 0.01] {
                for blackout in blackouts {
                    for lost_bytes in [0.0, 1e-5] {
                        lines.push(Faults {
                            bit_errors,
                            lost_frames,
                            repeated_frames,
                            blackout,
                            lost_bytes,
                            extra_bytes: lost_bytes,
                            ..Faults::default()
                        });
                    }
                }
            }
        }
    }
    lines
}

/// All 180 lines with each seed that `EYAS_LINK_SEEDS` asks for; else one line in nine.
#[test]
fn everything_arrives_over_every_line_of_the_matrix() {
    let content = content(1 << 17);
    let lines = whole_matrix();
    let is_asked = std::env::var_os("EYAS_LINK_SEEDS").is_some();
    let step = if is_asked { 1 } else { 9 };
    let mut n_cells = 0;
    for seed in seeds(1) {
        for (line_idx, faults) in lines.iter().enumerate().step_by(step) {
            let seed = 1000 * seed + line_idx as u64;
            // Panics with what arrived otherwise.
            push(&mut cable(*faults, seed), &content);
            n_cells += 1;
        }
    }
    println!("{n_cells} cells of {} bytes", content.len());
}

#[test]
fn a_megabyte_arrives_whole_at_a_good_share_of_the_lines_rate() {
    let content = content(1 << 20);
    for (bit_errors, lost_frames, least) in MATRIX {
        for (seed, repeated_frames) in seeds(2).map(|seed| (seed + 1, 0.01 * (seed % 2) as f64)) {
            let faults = Faults {
                bit_errors,
                lost_frames,
                repeated_frames,
                ..Faults::default()
            };
            let share = push(&mut cable(faults, seed), &content);
            println!("bit errors {bit_errors:e}, lost frames {lost_frames}: {share:.3}");
            assert!(share >= least, "{share:.3} < {least} with {faults:?}");
        }
    }
}

#[test]
fn everything_arrives_whatever_the_line_does() {
    let content = content(100_000);
    let millis = Duration::from_millis;
    let faults = Faults::default();
    let lines = [
        Faults {
            lost_bytes: 1e-4,
            extra_bytes: 1e-4,
            ..faults
        },
        Faults {
            delayed_frames: 0.2,
            repeated_frames: 0.2,
            ..faults
        },
        Faults {
            blackout: Some((millis(300), millis(100))),
            bit_errors: 1e-5,
            ..faults
        },
        Faults {
            blackout: Some((millis(500), millis(2000))),
            ..faults
        },
        Faults {
            lost_frames: 0.5,
            ..faults
        },
        Faults {
            bit_errors: 1e-3,
            lost_frames: 0.05,
            repeated_frames: 0.01,
            lost_bytes: 1e-5,
            extra_bytes: 1e-5,
            delayed_frames: 0.02,
            ..faults
        },
    ];
    for (seed, faults) in (10..).zip(lines) {
        push(&mut cable(faults, seed), &content);
    }
}

#[test]
fn both_directions_carry_at_once() {
    let faults = Faults {
        bit_errors: 1e-5,
        ..Faults::default()
    };
    let mut cable = cable(faults, 5);
    let content = content(200_000);
    let (mut sent, mut got) = ([0; 2], [Vec::new(), Vec::new()]);
    let mut buffer = [0; 1000];
    cable.run(|host, board, _| {
        for (end, which) in [(host, 0), (board, 1)] {
            sent[which] += end.write(&content[sent[which]..]);
            let n = end.read(&mut buffer);
            got[which].extend_from_slice(&buffer[..n]);
        }
        got.iter().all(|got| got.len() == content.len())
    });
    assert!(got.iter().all(|got| *got == content));
}

#[test]
fn a_slow_reader_holds_the_sender_back_and_loses_nothing() {
    let mut cable = cable(Faults::default(), 6);
    let content = content(60_000);
    let (mut written, mut arrived) = (0, Vec::new());
    let state = cable.run(|host, board, now| {
        written += host.write(&content[written..]);
        // 20 kB/s, a quarter of the line, and nothing at all for the first 40 s.
        let allowed = (now.as_secs_f64() - 40.0).max(0.0) * 20_000.0;
        let n = (allowed as usize).saturating_sub(arrived.len());
        let mut some = vec![0; n.min(500)];
        let n = board.read(&mut some);
        arrived.extend_from_slice(&some[..n]);
        assert!(host.bytes_in_flight() <= u64::from(DEFAULT_TERMS.window));
        arrived.len() == content.len()
    });
    assert_eq!((state, arrived == content), (State::Open, true));
}

#[test]
fn silence_ends_a_session_after_ten_seconds_and_not_before() {
    let mut cable = cable(Faults::default(), 7);
    push(&mut cable, &content(1000));
    let cut = Faults {
        lost_frames: 1.0,
        ..Faults::default()
    };
    cable.set_faults(cut);
    let began = cable.now;
    let state = cable.run(|_, _, _| false);
    assert_eq!(state, State::Lost(LinkError::Silent));
    let waited = (cable.now - began).as_secs_f64();
    assert!((9.0..11.0).contains(&waited), "{waited}");
    let later = cable.now + Duration::from_secs(1);
    assert_eq!(cable.board.state(later), State::Lost(LinkError::Silent));
}

#[test]
fn nobody_at_the_other_end_is_told_apart_from_noise() {
    let lost = Faults {
        lost_frames: 1.0,
        ..Faults::default()
    };
    let State::Lost(LinkError::NoAnswer { noise_bytes: 0, .. }) =
        cable(lost, 8).run(|_, _, _| false)
    else {
        panic!("silence is no noise");
    };
    let other_speed = Faults {
        is_other_speed: true,
        ..Faults::default()
    };
    let mut cable = cable(other_speed, 9);
    assert!(matches!(
        cable.run(|_, _, _| false),
        State::Lost(LinkError::NoAnswer { .. })
    ));
    assert!(cable.board.statistics().received.noise_bytes > 0);
}

#[test]
fn a_restarted_board_is_noticed_at_once() {
    let mut cable = cable(Faults::default(), 11);
    push(&mut cable, &content(5000));
    cable.board = Endpoint::board(DEFAULT_TERMS);
    cable.host.ping();
    let began = cable.now;
    assert_eq!(
        cable.run(|_, _, _| false),
        State::Lost(LinkError::Restarted)
    );
    assert!((cable.now - began) < Duration::from_secs(1));
}

/// Everything that one session puts onto the line towards the board.
fn recorded_session(id: u32) -> Vec<u8> {
    let (mut host, mut board) = ends(id, Duration::ZERO);
    let (mut wire, mut answer) = (Vec::new(), Vec::new());
    for step in 0..20_u32 {
        let now = Duration::from_millis(5) * step;
        host.write(&[1; 50]);
        let start = wire.len();
        while host.transmit(now, &mut wire) {}
        board.receive(&wire[start..], now);
        answer.clear();
        while board.transmit(now, &mut answer) {}
        host.receive(&answer, now);
    }
    assert_eq!(host.state(Duration::ZERO), State::Open);
    wire
}

#[test]
fn late_frames_of_an_earlier_session_change_nothing() {
    let late = recorded_session(1);
    let (host, mut board) = ends(7, Duration::ZERO);
    board.receive(&late, Duration::ZERO);
    assert_eq!(board.take_started(), Some(1));
    let mut cable = Cable::new(host, board, BAUD, Faults::default(), 12);
    let content = content(50_000);
    let (mut written, mut arrived) = (0, Vec::new());
    let mut n_started = 0;
    let mut next_late = Duration::ZERO;
    let mut buffer = [0; 4096];
    while arrived.len() < content.len() {
        cable.inject(&late);
        next_late += Duration::from_millis(100);
        let state = cable.run(|host, board, now| {
            n_started += usize::from(board.take_started().is_some());
            written += host.write(&content[written..]);
            if n_started == 1 {
                let n = board.read(&mut buffer);
                arrived.extend_from_slice(&buffer[..n]);
            }
            arrived.len() == content.len() || now >= next_late
        });
        assert_eq!(state, State::Open);
    }
    assert!(arrived == content);
    assert_eq!(n_started, 1);
}

#[test]
fn another_version_is_refused_with_its_number() {
    let mut board = Endpoint::board(DEFAULT_TERMS);
    let newer = Versions {
        oldest: 8,
        newest: 9,
    };
    let mut wire = Vec::new();
    Packet::Open(newer, DEFAULT_TERMS).write(3, &mut wire);
    board.receive(&wire, Duration::ZERO);
    let mut answer = Vec::new();
    assert!(board.transmit(Duration::ZERO, &mut answer));
    assert_eq!(board.state(Duration::ZERO), State::Idle);
    let mut expected = vec![0];
    Packet::Reset(Refusal::Version(VERSIONS)).write(3, &mut expected);
    assert_eq!(answer, expected);

    let mut host = Endpoint::host(3, DEFAULT_TERMS, PATIENCE, Duration::ZERO);
    let mut refusal = Vec::new();
    Packet::Reset(Refusal::Version(newer)).write(3, &mut refusal);
    host.receive(&refusal, Duration::ZERO);
    let lost = State::Lost(LinkError::Version { theirs: newer });
    assert_eq!(host.state(Duration::ZERO), lost);
}

#[test]
fn a_small_window_and_small_frames_are_enough() {
    let terms = Terms {
        max_payload: 64,
        window: 4096,
    };
    let host = Endpoint::host(7, DEFAULT_TERMS, PATIENCE, Duration::ZERO);
    let board = Endpoint::board(terms);
    let faults = Faults {
        bit_errors: 1e-4,
        ..Faults::default()
    };
    push(
        &mut Cable::new(host, board, BAUD, faults, 13),
        &content(50_000),
    );
}

/// Session, and the four frames of the example in PROTOCOL.md.
fn example() -> [Vec<u8>; 4] {
    let request = message::to_bytes(&Request {
        op: 1,
        ask: Ask::Info,
    });
    let ack = Ack {
        newest: 0,
        bitmap: 0,
        received: 4,
        limit: 32_772,
    };
    let packets = [
        Packet::Open(VERSIONS, DEFAULT_TERMS),
        Packet::Opened {
            version: 1,
            terms: DEFAULT_TERMS,
        },
        Packet::Data {
            number: 0,
            offset: 0,
            bytes: &request,
        },
        Packet::Ack(ack),
    ];
    packets.map(|packet| {
        let mut wire = Vec::new();
        packet.write(0x0102_0304, &mut wire);
        wire
    })
}

#[test]
fn the_example_of_the_protocol_page_is_what_goes_over_the_line() {
    let page = include_str!("../../PROTOCOL.md");
    for frame in example() {
        let hex: Vec<String> = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("    {}\n", hex.join(" "));
        assert!(page.contains(&line), "shared/PROTOCOL.md lacks{line}");
    }
    let [open, opened, data, ack] = example();
    let mut host = Endpoint::host(0x0102_0304, DEFAULT_TERMS, PATIENCE, Duration::ZERO);
    let mut sent = Vec::new();
    assert!(host.transmit(Duration::ZERO, &mut sent));
    assert_eq!(sent[1..], open);
    host.receive(&opened, Duration::ZERO);
    host.write(&message::to_bytes(&Request {
        op: 1,
        ask: Ask::Info,
    }));
    sent.clear();
    assert!(host.transmit(Duration::ZERO, &mut sent));
    assert_eq!(sent, data);
    host.receive(&ack, Duration::ZERO);
    assert!(host.is_settled());
}

#[test]
fn the_numbers_of_messages_are_those_of_the_protocol_page() {
    let file = FileId {
        hash: [0; 32],
        bytes: 0,
    };
    let asks = [
        (
            Ask::Hello {
                program: String::new(),
            },
            0,
        ),
        (
            Ask::Chunk {
                offset: 0,
                data: Vec::new(),
            },
            3,
        ),
        (Ask::Rollback { from: 0 }, 5),
        (Ask::Results, 7),
        (
            Ask::Find {
                kind: FileKind::Bundle,
            },
            9,
        ),
        (Ask::Speed { baud: 0 }, 11),
        (Ask::Goodbye, 12),
    ];
    for (ask, variant) in asks {
        let bytes = message::to_bytes(&Request { op: 0, ask });
        assert_eq!(bytes[3], variant);
    }
    let failed = Reply::Failed {
        code: Code::Unknown,
        reason: String::new(),
    };
    for (reply, variant) in [(Reply::Stored, 3), (Reply::File(file), 6), (failed, 9)] {
        let bytes = message::to_bytes(&Response { op: 0, reply });
        assert_eq!(bytes[3], variant);
    }
    let code = postcard::to_stdvec(&Code::Unknown).unwrap();
    assert_eq!(code, [10]);
}
