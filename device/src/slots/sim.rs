//! A disk in memory whose power can be cut between any two operations.
//!
//! After a cut every write that was not synced is kept, lost or torn at sector borders, each
//! by itself and in any order; so is every name whose folder was not synced. A sync that
//! fails loses track of what it was to bring to the disk, as Linux does. Operations can be
//! made to fail, once or from one on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use eyas_shared::random::Random;

use super::fs::Fs;

#[derive(Clone)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

/// Content of a file, wherever its name is.
#[derive(Clone, Default)]
struct Node {
    /// What programs read.
    live: Vec<u8>,
    /// What is on the disk for sure.
    durable: Vec<u8>,
    /// What the next sync brings there.
    pending: Vec<Write>,
    /// What a failed sync lost track of: it may be on the disk.
    untracked: Vec<Write>,
}

#[derive(Clone)]
struct NameChange {
    /// Changes of one operation.
    operation: usize,
    path: PathBuf,
    /// The node that gets the name; none if the name is removed.
    node: Option<usize>,
}

#[derive(Clone, Default)]
struct World {
    nodes: Vec<Node>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    pending: Vec<NameChange>,
    /// Operations of which one folder was synced.
    synced: BTreeSet<usize>,
    folders: BTreeSet<PathBuf>,
    free: u64,
    n_changes: usize,
    n_calls: usize,
}

/// How a disk looks after its power was cut.
#[derive(Clone, Copy)]
pub(super) struct Damage {
    /// Bytes that are written whole or not at all.
    pub(super) sector: usize,
    /// Whether one half of a renaming may be lost, as on FAT; other file systems keep a
    /// journal of it.
    pub(super) tears_renames: bool,
    /// Which of the many possible disks.
    pub(super) seed: u64,
}

impl Damage {
    /// Different damages, of all kinds in turn.
    pub(super) fn some(n: u64) -> impl Iterator<Item = Self> {
        (0..n).map(|seed| Self {
            sector: [512, 4096][(seed % 2) as usize],
            tears_renames: seed / 2 % 2 == 1,
            seed,
        })
    }
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Default)]
pub(super) struct Plan {
    /// No power from this change on.
    pub(super) cut_at: Option<usize>,
    /// The call of this number fails.
    pub(super) fail_at: Option<usize>,
    /// So do all later ones.
    pub(super) forever: bool,
    /// With this number of the system's.
    pub(super) errno: i32,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub(super) struct Sim {
    world: Rc<RefCell<World>>,
    plan: Plan,
}

fn apply(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// What is left of a file: `writes` may or may not have reached the disk.
fn after_cut(durable: &[u8], writes: &[Write], sector: usize, random: &mut Random) -> Vec<u8> {
    let mut content = durable.to_vec();
    let mut order: Vec<usize> = (0..writes.len()).collect();
    if random.below(4) == 0 {
        random.shuffle(&mut order);
    }
    for write in order.into_iter().map(|i| &writes[i]) {
        let fate = random.below(4);
        let mut start = 0;
        while start < write.bytes.len() {
            let at = write.offset + start;
            let end = ((at / sector + 1) * sector - write.offset).min(write.bytes.len());
            // All of it, none of it, or some sectors of it.
            let is_kept = match fate {
                0 => false,
                1 => true,
                _ => random.below(2) == 1,
            };
            if is_kept {
                apply(&mut content, at, &write.bytes[start..end]);
            }
            start = end;
        }
        // A file system may know the new length before it has the content.
        let end = write.offset + write.bytes.len();
        if content.len() < end && random.below(4) == 0 {
            let filling = [0, 0xa5][random.below(2)];
            content.resize(end, filling);
        }
    }
    content
}

impl Sim {
    /// An empty disk with one folder.
    pub(super) fn new(root: &Path) -> Self {
        let mut world = World {
            free: 1 << 30,
            ..World::default()
        };
        world.folders.insert(root.to_owned());
        Self {
            world: Rc::new(RefCell::new(world)),
            plan: Plan::default(),
        }
    }

    /// The same disk as it is now, counting from 0, for which something is planned.
    pub(super) fn planned(&self, plan: Plan) -> Self {
        let mut world = self.world.borrow().clone();
        (world.n_changes, world.n_calls) = (0, 0);
        Self {
            world: Rc::new(RefCell::new(world)),
            plan,
        }
    }

    /// The disk after its power was cut now and came back.
    pub(super) fn cut(&self, damage: Damage) -> Self {
        let mut random = Random::new(damage.seed);
        let mut world = self.world.borrow().clone();
        for node in &mut world.nodes {
            let writes = [&node.untracked[..], &node.pending[..]].concat();
            let content = after_cut(&node.durable, &writes, damage.sector, &mut random);
            *node = Node {
                live: content.clone(),
                durable: content,
                ..Node::default()
            };
        }
        let fate = random.below(4);
        let mut is_kept: BTreeMap<usize, bool> = BTreeMap::new();
        for change in std::mem::take(&mut world.pending) {
            let draw = match fate {
                0 => false,
                1 => true,
                _ => random.below(2) == 1,
            };
            let is_kept = match damage.tears_renames {
                true => draw,
                false => { is_kept.entry(change.operation) }
                    .or_insert(draw || world.synced.contains(&change.operation))
                    .to_owned(),
            };
            if is_kept {
                change.apply(&mut world.durable);
            }
        }
        world.synced.clear();
        world.live = world.durable.clone();
        (world.n_changes, world.n_calls) = (0, 0);
        Self {
            world: Rc::new(RefCell::new(world)),
            plan: Plan::default(),
        }
    }

    /// The same disk once everything has reached it.
    pub(super) fn settled(&self) -> Self {
        let settled = self.planned(Plan::default());
        let mut world = settled.world.borrow_mut();
        for node in &mut world.nodes {
            let live = std::mem::take(&mut node.live);
            *node = Node {
                durable: live.clone(),
                live,
                ..Node::default()
            };
        }
        world.pending.clear();
        world.synced.clear();
        world.durable = world.live.clone();
        drop(world);
        settled
    }

    /// Changes, and calls of any kind, since the plan was made.
    pub(super) fn counts(&self) -> (usize, usize) {
        let world = self.world.borrow();
        (world.n_changes, world.n_calls)
    }

    /// Leaves this many bytes free.
    pub(super) fn set_free(&self, bytes: u64) {
        self.world.borrow_mut().free = bytes;
    }

    /// Turns over one bit of a file, as an old memory card does.
    pub(super) fn rot(&self, path: &Path) {
        let mut world = self.world.borrow_mut();
        let node = world.live[path];
        let node = &mut world.nodes[node];
        let middle = node.live.len() / 2;
        node.live[middle] ^= 4;
        node.durable = node.live.clone();
    }

    fn call(&self) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        if self.plan.cut_at.is_some_and(|at| world.n_changes > at) {
            return Err(io::Error::other("no power"));
        }
        let call = world.n_calls;
        world.n_calls += 1;
        let fails = |at| call == at || (self.plan.forever && call > at);
        match self.plan.fail_at {
            Some(at) if fails(at) => Err(io::Error::from_raw_os_error(self.plan.errno)),
            _ => Ok(()),
        }
    }

    /// Begins a change; the result says whether it fails.
    fn change(&self) -> io::Result<()> {
        self.world.borrow_mut().n_changes += 1;
        self.call()
    }

    fn node_of(&self, path: &Path) -> io::Result<usize> {
        let world = self.world.borrow();
        let node = world.live.get(path).copied();
        node.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self.node {
            Some(node) => names.insert(self.path.clone(), node),
            None => names.remove(&self.path),
        };
    }
}

impl World {
    fn rename(&mut self, path: &Path, node: Option<usize>) {
        let change = NameChange {
            operation: self.n_changes,
            path: path.to_owned(),
            node,
        };
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    fn has_folder_of(&self, path: &Path) -> bool {
        path.parent()
            .is_some_and(|folder| self.folders.contains(folder))
    }
}

impl Fs for Sim {
    type Lock = ();

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.call()?;
        let node = self.node_of(path)?;
        let content = self.world.borrow().nodes[node].live.clone();
        if content.len() as u64 > max_bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(content)
    }

    fn read_at(&self, path: &Path, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.call()?;
        let node = self.node_of(path)?;
        let world = self.world.borrow();
        let content = &world.nodes[node].live;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let n_read = rest.len().min(buffer.len());
        buffer[..n_read].copy_from_slice(&rest[..n_read]);
        Ok(n_read)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.call()?;
        let node = self.node_of(path)?;
        Ok(self.world.borrow().nodes[node].live.len() as u64)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.call()?;
        let world = self.world.borrow();
        if !world.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = world
            .live
            .keys()
            .filter(|path| path.parent() == Some(folder));
        let names = names.filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    // Folders are made at setup only, and taken as durable.
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        self.world.borrow_mut().folders.insert(path.to_owned());
        Ok(())
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let outcome = self.change();
        let mut world = self.world.borrow_mut();
        if outcome.is_err() && self.plan.cut_at.is_some() {
            return outcome;
        }
        if !world.has_folder_of(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // A write that fails has written some of it.
        let n_bytes = match outcome {
            Ok(()) => bytes.len(),
            Err(_) => bytes.len() / 2,
        };
        let node = match world.live.get(path) {
            Some(node) => *node,
            None => {
                world.nodes.push(Node::default());
                let node = world.nodes.len() - 1;
                world.rename(path, Some(node));
                node
            }
        };
        let (offset, bytes) = (offset as usize, bytes[..n_bytes].to_vec());
        let node = &mut world.nodes[node];
        apply(&mut node.live, offset, &bytes);
        node.pending.push(Write { offset, bytes });
        outcome
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let outcome = self.change();
        if outcome.is_err() && self.plan.cut_at.is_some() {
            return outcome;
        }
        let node = self.node_of(path)?;
        let mut world = self.world.borrow_mut();
        let node = &mut world.nodes[node];
        let writes = std::mem::take(&mut node.pending);
        match outcome {
            Ok(()) => {
                for write in writes {
                    apply(&mut node.durable, write.offset, &write.bytes);
                }
            }
            Err(_) => node.untracked.extend(writes),
        }
        outcome
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        world.pending.retain(|change| {
            let is_here = change.path.parent() == Some(path);
            if is_here {
                change.apply(&mut world.durable);
                world.synced.insert(change.operation);
            }
            !is_here
        });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        let node = self.node_of(from)?;
        let mut world = self.world.borrow_mut();
        world.rename(to, Some(node));
        world.rename(from, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        self.node_of(path)?;
        self.world.borrow_mut().rename(path, None);
        Ok(())
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        self.call()?;
        Ok(self.world.borrow().free)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<()>> {
        self.write_at(path, 0, &[])?;
        Ok(Some(()))
    }

    fn is_shared(&self, _path: &Path) -> io::Result<bool> {
        self.call()?;
        Ok(false)
    }
}
