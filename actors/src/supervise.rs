//! Supervision: slots that own a child's place, generations, restart budgets, exits from join handles.
//!
//! actix restarts nothing after a panic and tells nobody, so a parent keeps a [`Slot`] per child. The slot's watcher
//! awaits the child's join handle, writes down how it ended and nudges the parent, who reconciles. A slot outlives the
//! child in it, and, being shared, also the parent: a fresh parent finds its children where they were.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, Addr, AsyncContext, Context, Message, Recipient};
use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use recorder_core::ids::Generation;
use recorder_core::restart::{RestartBudget, RestartVerdict};
use recorder_core::time::BootTime;

use crate::observe::{ActorKind, ActorSnapshot, ActorState, Severity, Totals};
use crate::world::World;

/// Something changed: look at the shared state. Carries nothing, so losing one of many loses nothing; parents also
/// look once a second.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Nudge;

/// How an actor's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was done.
    Normal,
    /// It stopped because of a fault outside it and said which: see [`Slot::fault`].
    Failed(String),
    /// It panicked, or said that what works for it did: see [`Slot::defect`].
    Panicked(String),
    /// Its task was dropped with the runtime.
    Cancelled,
}

/// Where nudges for an actor go: its newest value, if one lives.
#[derive(Default)]
pub struct Link {
    target: ArcSwapOption<Recipient<Nudge>>,
}

impl Link {
    pub fn connect(&self, recipient: Recipient<Nudge>) {
        self.target.store(Some(Arc::new(recipient)));
    }

    /// Never blocks. A full mailbox holds a nudge already.
    pub fn nudge(&self) {
        if let Some(target) = self.target.load_full() {
            let _ = target.try_send(Nudge);
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("connected", &self.target.load().is_some()).finish()
    }
}

/// What a parent is to do about a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing was ever started, or it ended as it should.
    Empty,
    Running,
    /// It ended by a fault and its back-off is over: start a fresh value.
    RestartNow,
    /// It ended by a fault and waits.
    Waiting,
    /// Its budget is used up.
    GivenUp,
}

struct Place<A: Actor> {
    addr: Option<Addr<A>>,
    generation: Generation,
    address: u64,
    /// Spent by panics.
    budget: RestartBudget,
    /// Spent by faults from outside, which are never given up.
    outages: RestartBudget,
    state: ActorState,
    restart_at: Option<BootTime>,
    restarts: u64,
    last_error: Option<String>,
    since_utc_micros: i64,
    /// Set by the child before it stops itself because of a fault.
    fault: Option<Exit>,
    name: String,
}

/// A child's place in the tree.
pub struct Slot<A: Actor> {
    path: String,
    kind: ActorKind,
    world: Arc<World>,
    parent: Arc<Link>,
    place: Mutex<Place<A>>,
}

impl<A> Slot<A>
where
    A: Actor<Context = Context<A>> + actix::Handler<Nudge>,
{
    pub fn new(
        world: &Arc<World>,
        parent: &Arc<Link>,
        path: String,
        kind: ActorKind,
        name: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            path,
            kind,
            world: Arc::clone(world),
            parent: Arc::clone(parent),
            place: Mutex::new(Place {
                addr: None,
                generation: Generation(0),
                address: 0,
                budget: RestartBudget::new(world.settings.restart),
                outages: RestartBudget::new(world.settings.restart),
                state: ActorState::Starting,
                restart_at: None,
                restarts: 0,
                last_error: None,
                since_utc_micros: 0,
                fault: None,
                name,
            }),
        })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Starts a fresh value in this place; `make` gets its generation.
    pub fn start(self: &Arc<Self>, make: impl FnOnce(Generation) -> A) {
        let context = Context::<A>::new();
        let addr = context.address();
        let generation = {
            let mut place = self.lock();
            if place.restart_at.take().is_some() {
                place.restarts += 1;
                Totals::count(&self.world.board.totals.actor_restarts);
            }
            place.generation = place.generation.next();
            place.address = self.world.board.next_address();
            place.addr = Some(addr);
            place.state = ActorState::Running;
            place.fault = None;
            place.since_utc_micros = self.world.clock.utc_micros();
            self.publish(&place);
            place.generation
        };
        let running = actix::spawn(context.into_future(make(generation)));
        let slot = Arc::clone(self);
        actix::spawn(async move {
            let exit = match running.await {
                Ok(()) => Exit::Normal,
                Err(error) if error.is_panic() => Exit::Panicked(panic_text(&*error.into_panic())),
                Err(_) => Exit::Cancelled,
            };
            slot.exited(generation, exit);
            slot.parent.nudge();
        });
    }

    pub fn addr(&self) -> Option<Addr<A>> {
        self.lock().addr.clone()
    }

    pub fn generation(&self) -> Generation {
        self.lock().generation
    }

    pub fn nudge(&self) {
        if let Some(addr) = self.addr() {
            let _ = addr.try_send(Nudge);
        }
    }

    /// The child says, before it stops itself, that it stops because of a fault outside it: a disk that refuses, say.
    /// Such a fault may go away by itself, so it is tried again for ever, in the end at the longest back-off. Only panics
    /// are given up.
    pub fn fault(&self, why: impl Into<String>) {
        self.lock().fault = Some(Exit::Failed(why.into()));
    }

    /// As [`Self::fault`], of a panic in what works for it on another thread: it is given up as if it had panicked itself.
    pub fn defect(&self, why: impl Into<String>) {
        self.lock().fault = Some(Exit::Panicked(why.into()));
    }

    /// Makes a place that was given up ready for a fresh value with a fresh budget. Others stay as they are.
    pub fn revive(&self) {
        let mut place = self.lock();
        if place.state == ActorState::Failed {
            place.budget = RestartBudget::new(self.world.settings.restart);
            place.state = ActorState::Stopped;
            self.publish(&place);
        }
    }

    pub fn rename(&self, name: &str) {
        let mut place = self.lock();
        if place.name != name {
            name.clone_into(&mut place.name);
            self.publish(&place);
        }
    }

    /// What the parent is to do at `now`.
    pub fn check(&self, now: BootTime) -> Check {
        let place = self.lock();
        match place.state {
            ActorState::Running | ActorState::Stopping => Check::Running,
            ActorState::Failed => Check::GivenUp,
            ActorState::Restarting if place.restart_at.is_some_and(|at| at <= now) => Check::RestartNow,
            ActorState::Restarting => Check::Waiting,
            ActorState::Starting | ActorState::Stopped => Check::Empty,
        }
    }

    /// Takes the place off the board.
    pub fn remove(&self) {
        self.world.board.remove_subtree(&self.path);
    }

    fn exited(&self, generation: Generation, exit: Exit) {
        let mut place = self.lock();
        if place.generation != generation {
            Totals::count(&self.world.board.totals.stale_messages);
            return;
        }
        place.addr = None;
        let exit = match (exit, place.fault.take()) {
            (Exit::Normal, Some(fault)) => fault,
            (exit, _) => exit,
        };
        match exit {
            Exit::Normal | Exit::Cancelled => place.state = ActorState::Stopped,
            Exit::Panicked(why) => {
                let verdict = place.budget.fault(self.world.clock.now());
                self.failed(&mut place, why, verdict);
            }
            Exit::Failed(why) => {
                let wait = place.outages.outage(self.world.clock.now());
                self.failed(&mut place, why, RestartVerdict::RestartAfter(wait));
            }
        }
        self.publish(&place);
    }

    fn failed(&self, place: &mut Place<A>, why: String, verdict: RestartVerdict) {
        tracing::error!(actor = %self.path, generation = place.generation.0, error = %why, "an actor failed");
        match verdict {
            RestartVerdict::RestartAfter(wait) => {
                place.state = ActorState::Restarting;
                place.restart_at = Some(self.world.clock.now() + wait);
                let parent = Arc::clone(&self.parent);
                actix::spawn(async move {
                    tokio::time::sleep(wait).await;
                    parent.nudge();
                });
            }
            RestartVerdict::GiveUp => {
                place.state = ActorState::Failed;
                Totals::count(&self.world.board.totals.actors_given_up);
            }
        }
        let what = format!("{} ({}) failed: {why}", place.name, self.kind.name());
        self.world.board.happened(self.world.clock.utc_micros(), Severity::Warning, what);
        place.last_error = Some(why);
    }

    fn publish(&self, place: &Place<A>) {
        self.world.board.put_actor(ActorSnapshot {
            path: self.path.clone(),
            kind: self.kind,
            name: place.name.clone(),
            state: place.state,
            generation: place.generation,
            address: place.address,
            restarts: place.restarts,
            last_error: place.last_error.clone(),
            since_utc_micros: place.since_utc_micros,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Place<A>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A panic's message, whatever it was thrown with.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned())
}

/// Runs what a port does to its end, a panic of it included; then the panic's text.
pub(crate) async fn guarded<T>(world: &World, work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|payload| {
        Totals::count(&world.board.totals.panics_caught);
        let why = panic_text(&*payload);
        tracing::error!(error = %why, "what an actor asked for panicked");
        why
    })
}

/// Looks each second, whether or not a nudge came.
pub fn tick_every_second<A>(context: &mut Context<A>)
where
    A: Actor<Context = Context<A>> + actix::Handler<Nudge>,
{
    context.run_interval(std::time::Duration::from_secs(1), |_, context| context.notify(Nudge));
}

/// Locks, also after a panic elsewhere: shared state is only ever replaced whole, so it is never half written.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
