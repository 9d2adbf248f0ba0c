//! Hostile bytes against everything that reads a cable, over and over, in constant memory.
//!
//! A bounded number of executions in every test run; `EYAS_FUZZ_SECONDS` runs each target for
//! so long instead, and prints how many executions that were. Every execution is a function
//! of its number, so a failure is found again by its seed.

use std::time::{Duration, Instant};

use eyas_shared::link::frame::{Deframer, Frame, MAX_STUFFED, encode};
use eyas_shared::link::message::{
    Ask, FileId, FileKind, Inbox, MAX_MESSAGE, Offer, Reply, Request, Response, read, to_bytes,
};
use eyas_shared::link::packet::{Ack, Packet, VERSIONS};
use eyas_shared::link::{DEFAULT_TERMS, Endpoint, SEND_BUFFER};
use eyas_shared::random::Random;

/// Executions of each target where nothing else is asked for.
const EXECUTIONS: u64 = 100_000;

/// Memory that a target may have more at its end than after its first part: what the
/// allocator keeps for itself.
const MAX_GROWTH_BYTES: u64 = 16 << 20;

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Runs a target many times; `run` gets the stream of random numbers of one execution.
#[expect(clippy::print_stdout, reason = "the counts are what a run shows")]
fn fuzz(target: &str, mut run: impl FnMut(&mut Random)) {
    let seconds = std::env::var("EYAS_FUZZ_SECONDS").ok();
    let limit = seconds
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs);
    let root = Random::new(1).fork(target);
    let began = Instant::now();
    let (mut n, mut before) = (0_u64, None);
    loop {
        if n == EXECUTIONS / 10 {
            before = resident_bytes();
        }
        let is_over = match limit {
            // The clock is looked at seldom: it takes longer than an execution.
            Some(limit) => n.is_multiple_of(1024) && n > EXECUTIONS && began.elapsed() >= limit,
            None => n == EXECUTIONS,
        };
        if is_over {
            break;
        }
        run(&mut root.at(n));
        n += 1;
    }
    println!(
        "{target}: {n} executions in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        let growth = after.saturating_sub(before);
        assert!(growth < MAX_GROWTH_BYTES, "{target} grew by {growth} bytes");
    }
}

fn random_bytes(random: &mut Random, max: usize) -> Vec<u8> {
    let n = random.below(max + 1);
    let zeros = random.chance(0.2);
    (0..n)
        .map(|_| match random.bits() {
            bits if zeros && bits & 0x300 == 0 => 0,
            bits => bits as u8,
        })
        .collect()
}

/// Changes a few bytes, cuts some off, or puts some in.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.bits() as u8,
            2 => bytes.truncate(at),
            _ => bytes.insert(at, random.bits() as u8),
        }
    }
}

fn random_packet(random: &mut Random, payload: &[u8]) -> (u32, Vec<u8>) {
    let near = |random: &mut Random| {
        let base = [0, 0, 5000, u32::MAX][random.below(4)];
        base.wrapping_add(random.below(200) as u32)
            .wrapping_sub(100)
    };
    let number = near(random);
    let packet = match random.below(5) {
        0 => Packet::Open(VERSIONS, DEFAULT_TERMS),
        1 => Packet::Opened {
            version: random.below(3) as u16,
            terms: DEFAULT_TERMS,
        },
        2 => Packet::Data {
            number,
            offset: near(random),
            bytes: payload,
        },
        3 => Packet::Ack(Ack {
            newest: number,
            bitmap: u128::from(random.bits()),
            received: near(random),
            limit: near(random),
        }),
        _ => Packet::Ping { number },
    };
    let session = [7, 7, 7, 8][random.below(4)];
    let mut wire = Vec::new();
    packet.write(session, &mut wire);
    (session, wire)
}

#[test]
fn the_deframer_takes_any_bytes() {
    let mut deframer = Deframer::new();
    let (mut wire, mut n_frames) = (Vec::new(), 0);
    fuzz("deframer", |random| {
        wire.clear();
        let body = random_bytes(random, 24);
        let frame = Frame {
            kind: random.bits() as u8,
            session: random.bits() as u32,
            number: random.bits() as u32,
            body: &body,
        };
        encode(&frame, &mut wire);
        let whole = wire.len();
        mutate(random, &mut wire);
        let cut = random.below(wire.len() + 1);
        deframer.feed(&wire[..cut], |_| n_frames += 1);
        deframer.feed(&wire[cut..], |_| n_frames += 1);
        assert!(whole <= MAX_STUFFED + 1);
    });
    assert!(n_frames > 0);
    let counted = deframer.counters();
    assert_eq!(counted.frames, n_frames);
    assert!(counted.damaged() > 0);
}

#[test]
fn noise_is_never_a_frame() {
    let mut deframer = Deframer::new();
    let mut noise = [0; 64];
    fuzz("noise", |random| {
        for chunk in noise.as_chunks_mut::<8>().0 {
            *chunk = random.bits().to_le_bytes();
        }
        deframer.feed(&noise, |frame| panic!("noise was taken for {frame:?}"));
    });
}

#[test]
fn messages_are_read_or_refused() {
    let file = FileId {
        hash: [3; 32],
        bytes: 1 << 20,
    };
    let requests = [
        Ask::Hello {
            program: "eyas".to_owned(),
        },
        Ask::Offer(Offer {
            kind: FileKind::Gallery,
            file,
            about: [0; 32],
        }),
        Ask::Chunk {
            offset: 300,
            data: vec![1; 20],
        },
        Ask::Query {
            image: [5; 32],
            top_k: 5,
        },
    ];
    let mut seeds: Vec<Vec<u8>> = requests
        .map(|ask| to_bytes(&Request { op: 1, ask }))
        .to_vec();
    for reply in [Reply::Stored, Reply::File(file), Reply::Have { bytes: 9 }] {
        seeds.push(to_bytes(&Response { op: 1, reply }));
    }
    fuzz("messages", |random| {
        let mut bytes = match random.below(4) {
            0 => random_bytes(random, 80),
            _ => seeds[random.below(seeds.len())][2..].to_vec(),
        };
        mutate(random, &mut bytes);
        // What is read is written again within its bounds.
        if let Ok(request) = read::<Request>(&bytes) {
            assert!(to_bytes(&request).len() <= 2 + MAX_MESSAGE);
        }
        if let Ok(response) = read::<Response>(&bytes) {
            assert!(to_bytes(&response).len() <= 2 + MAX_MESSAGE);
        }
    });
}

#[test]
fn endpoints_survive_any_sequence_of_frames() {
    let new_board = || Endpoint::board(DEFAULT_TERMS);
    let patience = Duration::from_secs(10);
    let new_host = |now| Endpoint::host(7, DEFAULT_TERMS, patience, now);
    let mut ends = [new_board(), new_host(Duration::ZERO)];
    let mut inboxes = [Inbox::new(), Inbox::new()];
    let mut now = Duration::ZERO;
    let mut out = Vec::new();
    let payload: Vec<u8> = (0..=255).collect();
    fuzz("endpoints", |random| {
        now += Duration::from_micros(random.below(3000) as u64);
        let which = random.below(2);
        let end = &mut ends[which];
        for _ in 0..4 {
            let n = 1 + random.below(payload.len() - 1);
            let (_, mut wire) = random_packet(random, &payload[..n]);
            if random.chance(0.1) {
                mutate(random, &mut wire);
            }
            end.receive(&wire, now);
        }
        end.write(&payload[..random.below(200)]);
        out.clear();
        for _ in 0..3 {
            end.transmit(now, &mut out);
        }
        assert!(end.room() <= SEND_BUFFER);
        let _ = inboxes[which].next::<Request>(end);
        end.state(now);
        if random.chance(0.01) {
            ends[which] = match which {
                0 => new_board(),
                _ => new_host(now),
            };
            inboxes[which] = Inbox::new();
        }
    });
}
