//! A transfer into a real store over a simulated cable that is pulled again and again.

use std::time::Duration;

use eyas_shared::fingerprint::Fingerprint;
use eyas_shared::link::message::{self, Ask, FileId, FileKind, Inbox, Offer, Request, Response};
use eyas_shared::link::simulate::{Cable, Faults};
use eyas_shared::link::upload::Upload;
use eyas_shared::link::{DEFAULT_TERMS, Endpoint};
use eyas_shared::random::Random;

use super::receive::Receiver;
use crate::slots::staging::CHECKPOINT_BYTES;
use crate::slots::{Disk, Settings, Slots};

const BAUD: u32 = 921_600;

/// Stream bytes for every byte of content: the fields around a chunk.
const ENVELOPE: f64 = 1.005;

/// One end after the other is restarted, or both.
#[derive(Clone, Copy)]
enum Break {
    Cable,
    Board,
}

/// Answers what has arrived, as the service does.
fn board_step(receiver: &mut Receiver<'_>, inbox: &mut Inbox, board: &mut Endpoint) {
    while let Some(Request { op, ask }) = inbox.next(board).unwrap() {
        let outcome = match ask {
            Ask::Offer(offer) => receiver.offer(offer),
            Ask::Chunk { offset, data } => receiver.chunk(offset, &data),
            other => panic!("{other:?} is not asked here"),
        };
        for reply in outcome.unwrap_or_else(|refusal| vec![refusal.into()]) {
            board.write(&message::to_bytes(&Response { op, reply }));
        }
    }
}

/// One session until the file is there or `until` is over. Where it began, and how many
/// bytes of the file went out for the first time in it.
fn session(
    id: u32,
    receiver: &mut Receiver<'_>,
    offer: Offer,
    content: &[u8],
    until: Duration,
    bit_errors: f64,
) -> (Upload, u64) {
    let host = Endpoint::host(id, DEFAULT_TERMS, Duration::from_secs(10), Duration::ZERO);
    let faults = Faults {
        bit_errors,
        ..Faults::default()
    };
    let board = Endpoint::board(DEFAULT_TERMS);
    let mut cable = Cable::new(host, board, BAUD, faults, u64::from(id));
    let mut upload = Upload::new(offer, 1);
    let (mut to_host, mut to_board) = (Inbox::new(), Inbox::new());
    cable.run(|host, board, now| {
        let read = |offset: u64, buffer: &mut [u8]| {
            let at = offset as usize;
            buffer.copy_from_slice(&content[at..at + buffer.len()]);
            Ok::<(), ()>(())
        };
        upload.send(host, read).unwrap();
        board_step(receiver, &mut to_board, board);
        while let Some(response) = to_host.next::<Response>(host).unwrap() {
            upload.on_reply(&response.reply).unwrap();
        }
        upload.is_done() || now >= until
    });
    let sent = cable.host.statistics().sent;
    (upload, sent.bytes - sent.repeated_bytes)
}

#[test]
fn a_hundred_breaks_cost_a_window_and_a_checkpoint_each_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let slots = Slots::init(
        Disk,
        &folder.path().join("store"),
        Settings::new(Vec::new()),
    )
    .unwrap();
    let mut random = Random::new(6).fork("breaks");
    let content: Vec<u8> = (0..8 << 20).map(|_| random.bits() as u8).collect();
    let offer = Offer {
        kind: FileKind::Gallery,
        file: FileId {
            hash: Fingerprint::of_bytes(&content).0,
            bytes: content.len() as u64,
        },
        about: [0; 32],
    };
    let allowed = u64::from(DEFAULT_TERMS.window) + CHECKPOINT_BYTES;
    let mut receiver = Receiver::new(Some(&slots));
    let (mut n_breaks, mut reached, mut worst) = (0, 0, 0);
    for id in 1.. {
        // 1 to 2 s bring about 90 to 180 kB.
        let is_last = n_breaks >= 100;
        let until = match is_last {
            true => Duration::from_secs(1000),
            false => Duration::from_secs_f64(0.2 + 1.2 * random.unit()),
        };
        let bit_errors = [0.0, 1e-5][random.below(2)];
        let (upload, fresh) = session(id, &mut receiver, offer, &content, until, bit_errors);
        let began_at = upload.began_at();
        if upload.handed_over() > 0 {
            let again = u64::saturating_sub(reached, began_at);
            worst = worst.max(again);
            assert!(
                again <= allowed,
                "{again} bytes were sent again, {allowed} allowed"
            );
            reached = began_at + (fresh as f64 / ENVELOPE) as u64;
        }
        if upload.is_done() {
            break;
        }
        n_breaks += 1;
        match [Break::Cable, Break::Board][random.below(2)] {
            Break::Cable => receiver.break_off(),
            // Killed: what was not written down is gone.
            Break::Board => receiver = Receiver::new(Some(&slots)),
        }
    }
    assert_eq!(n_breaks, 100, "the file was there too soon");
    println!("{n_breaks} breaks, at most {worst} bytes sent again");
    let stored = slots.locate(offer.file.fingerprint()).unwrap().unwrap();
    assert!(std::fs::read(stored).unwrap() == content);
}
