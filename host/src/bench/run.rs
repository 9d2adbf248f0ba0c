//! Goes through a plan with a board: which cell is visited when, what is asked there, and
//! what is done when a link breaks.

use std::path::Path;

use anyhow::{Context, bail};
use eyas_shared::fingerprint::{Fingerprint, ImageId};
use eyas_shared::link::bench::{Candidate, Sample, Window};
use eyas_shared::link::message::{Answer, Code, FileKind, Verdict};
use eyas_shared::random::Random;

use super::catalog::{Beginning, Catalog, CatalogCell};
use super::compute::{best_pace, window_flags};
use super::material::{Listed, Material, cosine, first_matches};
use super::plan::{Mode, Plan};
use super::reach::{Reach, board_of};
use super::results::{Protocol, Results};
use super::session::{self, Session, SessionError, utc_now};
use super::visit::{AnswerRecord, Purpose, Visit, WindowRecord};
use super::{energy, pictures};
use crate::link::push::Source;
use crate::link::{Address, Client, ClientError, Options};

/// Times that a visit is begun before it counts as failed.
const MAX_TRIES: usize = 4;

/// Runs of an operator profile.
const PROFILE_RUNS: u16 = 20;

/// What a run tells whoever waits for it.
pub enum Event<'e> {
    /// Something that should be read.
    Note(&'e str),
    /// Work begins that has so many steps.
    Begin(&'e str, usize),
    /// One step is done.
    Step,
}

/// Whoever waits.
pub type Tell<'t> = &'t mut dyn FnMut(Event<'_>);

/// How a run is begun.
pub struct Start<'s> {
    /// The plan, with what the command line chose of it.
    pub plan: &'s Plan,
    /// Its text, and what the command line chose, for the record.
    pub text: &'s str,
    /// Where the board is.
    pub address: &'s Address,
    /// How sessions with it are begun.
    pub options: &'s Options,
    /// The session's folder.
    pub folder: &'s Path,
    /// Whether the folder holds a session that is to go on.
    pub resumes: bool,
}

/// A run on its way.
struct Run<'s, 't> {
    plan: &'s Plan,
    material: Material,
    catalog: Catalog,
    session: Session,
    reach: Reach,
    clock_offset_us: i64,
    visits: Vec<Visit>,
    next_number: usize,
    tell: Tell<'t>,
}

/// Measures everything that a plan asks for and that is not there yet, and writes the
/// session's results.
///
/// # Errors
/// If the plan's files can not be used, the board can not be reached, or the session can not
/// be written. What fails with a cell is a failure of that cell.
pub fn run(start: &Start<'_>, tell: Tell<'_>) -> anyhow::Result<Results> {
    let (material, listed) = Material::open(start.plan)?;
    let client = Client::connect(start.address, start.options)?;
    let mut reach = Reach::new(client, start.options);
    let met = reach.meet()?;
    let board = board_of(met.facts, start.address.to_string());
    let beginning = Beginning {
        name: start.plan.name.clone(),
        plan: Fingerprint::of_bytes(start.text.as_bytes()).to_string(),
        began: utc_now(),
        host: super::program(),
        protocol: protocol(start.plan, &material),
    };
    let Listed {
        queries,
        galleries,
        cells,
    } = listed;
    let catalog = Catalog::new(beginning, queries, galleries, cells, board);
    let (session, catalog) = hold(start, catalog)?;
    let visits = session::visits(start.folder, &catalog).map_err(SessionError::Visit)?;
    let mut run = Run {
        plan: start.plan,
        material,
        next_number: visits
            .iter()
            .map(|visit| visit.number + 1)
            .max()
            .unwrap_or(0),
        visits,
        catalog,
        session,
        reach,
        clock_offset_us: met.clock_offset_us,
        tell,
    };
    run.push_files()?;
    if start.plan.mode != Mode::Performance {
        run.accuracy()?;
    }
    if start.plan.mode != Mode::Accuracy {
        run.performance()?;
    }
    run.finish()
}

fn protocol(plan: &Plan, material: &Material) -> Protocol {
    let performance = &plan.performance;
    Protocol {
        mode: plan.mode.name().to_owned(),
        n_windows: performance.windows,
        n_retries: performance.retries,
        at_least_s: performance.at_least_s,
        at_least: performance.at_least as usize,
        warm_up_s: performance.warm_up_s,
        n_window_images: material.window_images(performance.images).len(),
        top_k: plan.top_k.into(),
        seed: plan.seed,
        energy_offset_s: plan.energy.as_ref().map_or(0.0, |energy| energy.offset_s),
    }
}

/// A new session, or one that is to go on.
fn hold(start: &Start<'_>, catalog: Catalog) -> anyhow::Result<(Session, Catalog)> {
    if !start.resumes {
        let mut session = Session::create(start.folder, start.text)?;
        catalog.save(start.folder)?;
        session.log(&format!(
            "began: {} cells on {}",
            catalog.cells.len(),
            start.address
        ));
        return Ok((session, catalog));
    }
    let mut session = Session::open(start.folder)?;
    let known = Catalog::read(start.folder)?;
    if let Some(what) = known.difference(&catalog) {
        let path = start.folder.to_owned();
        return Err(SessionError::Other { path, what }.into());
    }
    session.log("went on");
    Ok((session, known))
}

impl Run<'_, '_> {
    fn note(&mut self, text: &str) {
        self.session.log(text);
        (self.tell)(Event::Note(text));
    }

    /// Sends what the board does not have.
    fn push_files(&mut self) -> anyhow::Result<()> {
        if !self.reach.pusher().connected()?.hello().takes_files {
            return Ok(());
        }
        let galleries = self.material.galleries.values().map(|it| &it.source);
        let bundles = self.material.bundles.values().map(|it| &it.source);
        let sources: Vec<&Source> = galleries.chain(bundles).collect();
        (self.tell)(Event::Begin("sending files", sources.len()));
        let mut breaks = Vec::new();
        for source in sources {
            let shown = source.path.display().to_string();
            let pusher = self.reach.pusher();
            let mut noted = |err: &ClientError| breaks.push(format!("sending `{shown}`: {err}"));
            pusher
                .push(source, |_| {}, &mut noted)
                .with_context(|| format!("could not send `{shown}`"))?;
            if let Some(signature) = signature_beside(source)? {
                pusher
                    .push(&signature, |_| {}, &mut noted)
                    .with_context(|| format!("could not send `{}`", signature.path.display()))?;
            }
            (self.tell)(Event::Step);
        }
        for what in breaks {
            self.session.note_incident(&what)?;
        }
        Ok(())
    }

    fn has(&self, cell: &str, purpose: Purpose) -> bool {
        let same = |visit: &&Visit| visit.cell == cell && visit.purpose == purpose;
        let found = self.visits.iter().find(same);
        found.is_some_and(|visit| visit.failure.is_none())
    }

    /// Cells in an order of their own for each round.
    fn shuffled(&self, purpose: &str, round: usize) -> Vec<CatalogCell> {
        let mut cells = self.catalog.cells.clone();
        let seed = Random::new(self.plan.seed);
        seed.fork(purpose).at(round as u64).shuffle(&mut cells);
        cells
    }

    fn accuracy(&mut self) -> anyhow::Result<()> {
        let cells = self.shuffled("accuracy", 0);
        let n_queries = self.catalog.queries.len();
        (self.tell)(Event::Begin("asking", cells.len() * n_queries));
        for cell in cells {
            if self.has(&cell.key, Purpose::Accuracy) {
                continue;
            }
            let key = (cell.student.clone(), cell.precision.clone());
            let asking = self.material.asking.clone();
            let bundle = self.material.bundles.get_mut(&key);
            let bundle = bundle.context("a cell without a bundle")?;
            let own = bundle.embeddings(&asking, || {})?.to_vec();
            let gallery = &self.material.galleries[&cell.gallery];
            let firsts = first_matches(&gallery.path, &asking, &own)?;
            let own: Vec<(Option<Vec<f32>>, String)> = own.into_iter().zip(firsts).collect();
            self.visit(&cell, Purpose::Accuracy, |run, visit| {
                run.ask_all(&cell, visit, &own)
            })?;
        }
        Ok(())
    }

    fn performance(&mut self) -> anyhow::Result<()> {
        let images = self.material.window_images(self.plan.performance.images);
        if images.is_empty() {
            bail!("none of the images that ask can be read");
        }
        let n_windows = self.plan.performance.windows;
        let n_cells = self.catalog.cells.len();
        (self.tell)(Event::Begin("measuring", n_windows * n_cells));
        for round in 0..n_windows {
            let mut cells = self.shuffled("performance", round);
            for again in 0..=self.plan.performance.retries {
                let purpose = Purpose::Window { round, again };
                for cell in &cells {
                    if !self.has(&cell.key, purpose) {
                        self.visit(cell, purpose, |run, visit| run.window(visit, &images))?;
                    }
                    if again == 0 {
                        (self.tell)(Event::Step);
                    }
                }
                // What was disturbed is measured again at the end of its round.
                let best_pace = best_pace(&self.visits);
                cells.retain(|cell| self.was_disturbed(&cell.key, purpose, best_pace));
            }
        }
        Ok(())
    }

    fn was_disturbed(&self, cell: &str, purpose: Purpose, best_pace: u64) -> bool {
        let same = |visit: &&Visit| visit.cell == cell && visit.purpose == purpose;
        let window = { self.visits.iter() }
            .find(same)
            .and_then(|visit| visit.window.as_ref());
        window.is_some_and(|window| !window_flags(window, best_pace).is_empty())
    }

    /// One visit, tried again as long as the link is to blame. What the board refuses is
    /// the cell's failure.
    fn visit(
        &mut self,
        cell: &CatalogCell,
        purpose: Purpose,
        mut work: impl FnMut(&mut Self, &mut Visit) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let number = self.next_number;
        self.next_number += 1;
        let mut n_left = MAX_TRIES;
        let visit = loop {
            let mut visit = Visit::new(&cell.key, purpose, number);
            let outcome = self
                .begin(cell, &mut visit)
                .and_then(|()| work(self, &mut visit))
                .and_then(|()| {
                    visit.used = Some(self.reach.conclude()?);
                    Ok(())
                });
            n_left -= 1;
            match outcome {
                Ok(()) => break visit,
                Err(err) => {
                    visit.failure = self.recover(cell, err, n_left)?;
                    if visit.failure.is_some() {
                        break visit;
                    }
                }
            }
        };
        self.keep(visit)
    }

    /// Brings the link back, if that was to blame and there is another try; else why the
    /// visit failed.
    fn recover(
        &mut self,
        cell: &CatalogCell,
        err: anyhow::Error,
        n_left: usize,
    ) -> anyhow::Result<Option<String>> {
        let failure = format!("{err:#}");
        let err = match err.downcast::<ClientError>() {
            Ok(err) if n_left > 0 => err,
            _ => return Ok(Some(failure)),
        };
        self.session
            .log(&format!("{}: broken off: {failure}", cell.key));
        match self.reach.recover(err) {
            Ok(incident) => {
                let incident = format!("{}: {incident}; visited again", cell.key);
                self.session.note_incident(&incident)?;
                (self.tell)(Event::Note(&incident));
                self.clock_offset_us = self.reach.meet()?.clock_offset_us;
                Ok(None)
            }
            Err(ClientError::Refused { reason, .. }) => Ok(Some(reason)),
            Err(err) => Err(err).context("the board can not be reached any more"),
        }
    }

    fn keep(&mut self, mut visit: Visit) -> anyhow::Result<()> {
        visit.clock_offset_us = self.clock_offset_us;
        if let Some(failure) = &visit.failure {
            self.note(&format!("{}: failed: {failure}", visit.cell));
        }
        self.log_window(&visit);
        visit.save(self.session.folder())?;
        self.visits
            .retain(|known| known.cell != visit.cell || known.purpose != visit.purpose);
        self.visits.push(visit);
        Ok(())
    }

    fn log_window(&mut self, visit: &Visit) {
        let Some(window) = &visit.window else {
            return;
        };
        let flags = window_flags(window, best_pace(&self.visits));
        let said: Vec<String> = { flags.iter() }
            .map(|raised| format!("{}: {}", raised.flag, raised.why))
            .collect();
        let n = window.samples.len();
        let line = match said.is_empty() {
            true => format!("{}: {n} queries, clean", visit.cell),
            false => format!("{}: {n} queries, {}", visit.cell, said.join("; ")),
        };
        self.session.log(&line);
    }

    /// Starts the cell's process.
    fn begin(&mut self, cell: &CatalogCell, visit: &mut Visit) -> anyhow::Result<()> {
        let hash = |text: &str| Fingerprint::from_hex(text).map(|hash| hash.0);
        let gallery = self.catalog.gallery(&cell.gallery);
        let gallery = gallery.and_then(|gallery| hash(&gallery.facts.hash));
        let candidate = Candidate {
            bundle: hash(&cell.bundle.hash).context("a bundle without a hash")?,
            gallery: gallery.context("a gallery without a hash")?,
            threads: cell.threads,
        };
        visit.prepared = Some(self.reach.prepare(candidate)?);
        Ok(())
    }

    /// All queries once, compared with what this machine makes of them.
    fn ask_all(
        &mut self,
        cell: &CatalogCell,
        visit: &mut Visit,
        own: &[(Option<Vec<f32>>, String)],
    ) -> anyhow::Result<()> {
        // One more, in case the query itself is in the gallery.
        let top_k = self.plan.top_k + 1;
        for (query, (own, host_first)) in own.iter().enumerate() {
            let bytes = match self.material.image(query) {
                Ok(bytes) => bytes,
                Err(err) => {
                    visit.failed.push((query, format!("{err:#}")));
                    continue;
                }
            };
            let image = self.reach.send_image(&bytes)?;
            match self.reach.ask(image, top_k) {
                Ok((answer, embedding)) => {
                    let plane = &self.material.galleries[&cell.gallery].plane;
                    let record = AnswerRecord {
                        query,
                        matches: matches_of(&answer)?,
                        verdict: answer
                            .verdict
                            .map(|verdict| verdict_name(verdict).to_owned()),
                        total_us: total_us(&answer),
                        cosine: own.as_ref().map_or(0.0, |own| cosine(own, &embedding)),
                        host_first: host_first.clone(),
                        at: plane.place(&embedding),
                    };
                    visit.first.get_or_insert_with(|| sample_of(&answer));
                    visit.answers.push(record);
                }
                Err(ClientError::Refused {
                    code: Code::Image,
                    reason,
                }) => visit.failed.push((query, reason)),
                Err(err) => return Err(err.into()),
            }
            (self.tell)(Event::Step);
        }
        if visit.answers.is_empty() {
            let n = visit.failed.len();
            visit.failure = Some(format!("none of {n} queries was answered"));
        }
        if self.plan.profile {
            let bytes = self.material.image(0)?;
            let image = self.reach.send_image(&bytes)?;
            visit.operators = self.reach.profile(image, PROFILE_RUNS)?;
        }
        Ok(())
    }

    /// One window.
    fn window(&mut self, visit: &mut Visit, images: &[usize]) -> anyhow::Result<()> {
        let mut hashes = Vec::new();
        for query in images {
            let bytes = self.material.image(*query)?;
            hashes.push(self.reach.send_image(&bytes)?);
        }
        let top_k = self.plan.top_k;
        let (first, _) = self.reach.ask(hashes[0], top_k)?;
        visit.first = Some(sample_of(&first));
        let performance = &self.plan.performance;
        let millis = |seconds: f64| (seconds * 1e3).round() as u32;
        let (before, after, samples) = self.reach.measure(Window {
            images: hashes,
            top_k,
            warm_up_ms: millis(performance.warm_up_s),
            at_least_ms: millis(performance.at_least_s),
            at_least: performance.at_least,
        })?;
        visit.window = Some(WindowRecord {
            before,
            after,
            samples,
        });
        Ok(())
    }

    /// Pictures, readings and results.
    fn finish(mut self) -> anyhow::Result<Results> {
        self.reach.leave();
        let folder = self.session.folder().to_owned();
        if let Some(plan) = &self.plan.energy
            && plan.readings.exists()
        {
            energy::keep(&plan.readings, &folder)?;
        }
        pictures::save(&folder, &self.material, &self.visits)?;
        let results = session::write_results(&folder)?;
        self.session.log("finished");
        Ok(results)
    }
}

fn signature_beside(source: &Source) -> Result<Option<Source>, ClientError> {
    let mut path = source.path.clone().into_os_string();
    path.push(".minisig");
    let path = std::path::PathBuf::from(path);
    if !path.exists() {
        return Ok(None);
    }
    Source::open_as(&path, FileKind::Signature, source.offer.file.hash).map(Some)
}

fn matches_of(answer: &Answer) -> Result<Vec<(String, String, f32)>, ClientError> {
    let matches = answer.matches();
    let matches = matches.ok_or(ClientError::Answer { asked: "a query" })?;
    let one = |(found, label, _): (eyas_shared::link::message::Found, &str, &str)| {
        (ImageId(found.id).to_string(), label.to_owned(), found.score)
    };
    Ok(matches.into_iter().map(one).collect())
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Match => "match",
        Verdict::Uncertain => "uncertain",
        Verdict::Unknown => "unknown",
    }
}

fn sample_of(answer: &Answer) -> Sample {
    let nanos = |micros: u64| micros.saturating_mul(1000);
    Sample {
        decode: nanos(answer.decode_micros),
        preprocess: nanos(answer.preprocess_micros),
        encode: nanos(answer.encode_micros),
        search: nanos(answer.search_micros),
    }
}

fn total_us(answer: &Answer) -> u64 {
    sample_of(answer).nanos(eyas_shared::timing::Stage::Total) / 1000
}
