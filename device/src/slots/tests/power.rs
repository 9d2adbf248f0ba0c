//! The power is cut before every operation of an update, a rollback and a setup, and again
//! during the recovery: what serves is the old pair or the new one, and it can be updated.

use super::super::sim::{Damage, Plan};
use super::*;

/// Damages of each cut: both sector sizes, renames that tear and that do not.
const N_DAMAGES: u64 = 64;

/// Does the work with the power cut before each of its changes, and gives the damaged disks.
fn each_cut(
    before: &Sim,
    n_damages: u64,
    mut work: impl FnMut(&Slots<Sim>) -> Result<(), SlotsError>,
    mut check: impl FnMut(Sim),
) -> usize {
    for cut_at in 0.. {
        let plan = Plan {
            cut_at: Some(cut_at),
            ..Plan::default()
        };
        let slots = open(before.planned(plan));
        let outcome = work(&slots);
        if outcome.is_ok() && slots.fs.counts().0 <= cut_at {
            return cut_at;
        }
        for damage in Damage::some(n_damages) {
            check(slots.fs.cut(damage));
        }
    }
    unreachable!("some cut lies behind the end")
}

/// After a cut: serves an old or new pair at every start, and takes the new one.
#[track_caller]
fn recovers(disk: Sim) {
    let slots = open(disk);
    // More starts than a trial has: it may be rolled back in between.
    let first = serving_pair(&slots);
    for _ in 0..4 {
        let pair = serving_pair(&slots);
        assert!(
            pair == first || pair == OLD,
            "a rollback leads to the old pair"
        );
    }
    update(&slots, NEW).unwrap();
    assert_eq!(serving_pair(&slots), NEW);
    assert!(slots.pointer().unwrap().trial.is_none());
    slots.clean().unwrap();
    assert_eq!(names(&slots, staging::STAGED), [""; 0]);
    assert!(names(&slots, FILES).len() <= 4);
    assert!(names(&slots, pointer::GENERATIONS).len() <= 2);
}

#[test]
fn an_update_that_loses_power_anywhere_leaves_the_old_pair_or_the_new_one() {
    let before = served();
    let work = |slots: &Slots<Sim>| update(slots, NEW);
    let n_cuts = each_cut(&before, N_DAMAGES, work, recovers);
    assert!(n_cuts > 40, "an update has {n_cuts} changes");
}

#[test]
fn a_second_loss_of_power_during_the_recovery_changes_nothing() {
    let before = served();
    let work = |slots: &Slots<Sim>| {
        slots.start()?;
        update(slots, NEW)
    };
    each_cut(&before, 4, work, |disk| {
        each_cut(&disk, 2, work, recovers);
    });
}

#[test]
fn a_rollback_that_loses_power_anywhere_is_done_or_not() {
    let slots = open(served());
    update(&slots, NEW).unwrap();
    let before = slots.fs.settled();
    let work = |slots: &Slots<Sim>| slots.rollback("by hand").map(|_| ());
    each_cut(&before, N_DAMAGES, work, |disk| {
        let slots = open(disk);
        let pair = serving_pair(&slots);
        assert!([OLD, NEW].contains(&pair));
        let other = if pair == OLD { NEW } else { OLD };
        slots.rollback("by hand").unwrap();
        assert_eq!(serving_pair(&slots), other);
    });
}

#[test]
fn a_setup_that_loses_power_can_be_done_again_and_never_forgets_its_keys() {
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let keys = vec![eyas_shared::signature::TrustedKey::read(key).unwrap()];
    let setup = |sim: Sim| Slots::init(sim, root(), Settings::new(keys.clone()));
    let fresh = Sim::new(root());
    for cut_at in 0.. {
        let plan = Plan {
            cut_at: Some(cut_at),
            ..Plan::default()
        };
        let sim = fresh.planned(plan);
        let is_done = Slots::init(sim.clone(), root(), Settings::new(keys.clone())).is_ok();
        for damage in Damage::some(N_DAMAGES) {
            let disk = sim.cut(damage);
            let slots = match Slots::open(disk.planned(Plan::default()), root()) {
                Ok(slots) => slots,
                Err(SlotsError::NotSetUp { .. }) if !is_done => setup(disk).unwrap(),
                Err(err) => panic!("{err}"),
            };
            assert_eq!(slots.settings().unwrap().keys, keys);
            assert!(matches!(slots.start(), Err(SlotsError::Empty { .. })));
        }
        if is_done {
            return;
        }
    }
}

#[test]
fn what_was_safe_is_never_sent_again() {
    let before = served();
    for cut_at in 0.. {
        let plan = Plan {
            cut_at: Some(cut_at),
            ..Plan::default()
        };
        let slots = open(before.planned(plan));
        let mut safe = 0;
        let is_done = send(&slots, NEW.0, &mut |bytes| safe = bytes).is_ok();
        // Where a rename tears, the file itself may be lost on its last step.
        for damage in Damage::some(N_DAMAGES).filter(|damage| !damage.tears_renames) {
            let slots = open(slots.fs.cut(damage));
            let bytes = content(NEW.0).len() as u64;
            let have = slots.stage(hash(NEW.0), bytes).unwrap().have();
            assert!(have >= safe, "{have} of {safe} bytes at cut {cut_at}");
        }
        if is_done && slots.fs.counts().0 <= cut_at {
            return;
        }
    }
}

#[test]
fn without_any_pointer_the_newest_confirmed_pair_serves() {
    let slots = open(served());
    update(&slots, NEW).unwrap();
    for name in ["pointer-a", "pointer-b"] {
        slots
            .fs
            .write_at(&root().join(name), 0, &[0xa5; 3000])
            .unwrap();
    }
    assert_eq!(serving_pair(&slots), NEW);
    slots.rollback("the pointer was lost").unwrap();
    assert_eq!(serving_pair(&slots), OLD);
}
