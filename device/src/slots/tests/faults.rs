//! Every call of an update fails, once or from then on: an error, never a panic; what serves
//! is the old pair or the new one, and once the disk works again it can be updated.

use super::super::sim::{Damage, Plan};
use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Fails call after call of an update until none is left to fail.
fn each_failure(errno: i32, forever: bool) {
    let before = served();
    for fail_at in 0.. {
        let plan = Plan {
            fail_at: Some(fail_at),
            forever,
            errno,
            ..Plan::default()
        };
        let sim = before.planned(plan);
        let outcome = Slots::open(sim.clone(), root()).and_then(|slots| {
            update(&slots, NEW)?;
            slots.start()
        });
        let is_over = sim.counts().1 <= fail_at;
        assert!(outcome.is_ok() || !is_over);
        // The power is cut as well, because a sync that failed may be told only by that.
        for damage in Damage::some(4) {
            for disk in [sim.planned(Plan::default()), sim.cut(damage)] {
                let slots = open(disk);
                let pair = serving_pair(&slots);
                assert!([OLD, NEW].contains(&pair));
                update(&slots, NEW).unwrap();
                let slots = open(slots.fs.cut(damage));
                assert_eq!(serving_pair(&slots), NEW, "call {fail_at}");
            }
        }
        if is_over {
            return;
        }
    }
}

#[test]
fn a_call_that_fails_once_leaves_a_store_that_serves() {
    each_failure(EIO, false);
    each_failure(ENOSPC, false);
}

#[test]
fn a_disk_that_fails_for_good_leaves_a_store_that_serves() {
    each_failure(EIO, true);
    each_failure(ENOSPC, true);
}

#[test]
fn too_little_room_is_said_before_a_byte_is_sent() {
    let slots = open(served());
    slots.fs.set_free(1 << 20);
    let err = send(&slots, NEW.0, &mut |_| {}).unwrap_err();
    assert!(matches!(err, SlotsError::NoSpace { .. }), "{err}");
    let text = err.to_string();
    assert!(text.contains("1060964 bytes are needed"), "{text}");
    assert!(text.contains("1048576 are free"), "{text}");
}

#[test]
fn a_bit_that_turned_over_in_a_staged_file_is_noticed_and_the_file_sent_again() {
    let slots = open(served());
    send(&slots, NEW.0, &mut |_| {}).unwrap();
    slots.fs.rot(&slots.locate(hash(NEW.0)).unwrap().unwrap());
    let choice = Choice {
        bundle: Some(hash(NEW.0)),
        ..Choice::default()
    };
    let err = slots.install(&choice, &Passes).unwrap_err();
    assert!(matches!(err, SlotsError::OtherContent { .. }), "{err}");
    assert_eq!(serving_pair(&slots), OLD);
    assert!(!slots.has(hash(NEW.0)).unwrap());
    update(&slots, NEW).unwrap();
    assert_eq!(serving_pair(&slots), NEW);
}

#[test]
fn a_bit_that_turned_over_in_a_part_costs_one_checkpoint() {
    let slots = open(served());
    let bytes = content(NEW.0);
    let mut staging = slots
        .stage_by(hash(NEW.0), bytes.len() as u64, 4096)
        .unwrap();
    for page in 0..3 {
        staging
            .write(page * 4096, &bytes[page as usize * 4096..][..4096])
            .unwrap();
    }
    assert_eq!(staging.safe(), 3 * 4096);
    drop(staging);
    let part = root()
        .join(staging::STAGED)
        .join(format!("{}.part", hash(NEW.0)));
    // The bit in the middle lies in the second page.
    slots.fs.rot(&part);
    let staging = slots.stage(hash(NEW.0), bytes.len() as u64).unwrap();
    assert_eq!(staging.have(), 4096);
}
