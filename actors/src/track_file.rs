//! One segment on its way from ring to files: the part of a pump that knows a track.

mod pause;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use recorder_core::ids::SegmentId;
use recorder_core::manifest::{GapCause, Ledger, OpenedBecause, Record};
use recorder_core::media::{MediaKind, RingItem};
use recorder_core::rtp::{
    EncodedFrame, FormatChange, Reason, ReceiverOutput, ReceiverSettings, TrackReceiver,
};
use recorder_core::time::BootTime;
use tokio::sync::watch;

use crate::observe::Totals;
use crate::open_file::{ClosingFile, Figures, OpenFile, not_written};
use crate::pump::PumpWorld;
use crate::segment::{Failure, SegmentControl, SegmentFacts, SegmentOrder, SegmentPhase};
use crate::supervise::lock;
use crate::testing::{Point, visit};

/// Progress goes to the journal, and figures to the board, this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Packets one turn takes from one ring, so that a flooded track does not starve the others.
const MOST_PER_TURN: usize = 2048;
/// Files that one order may open.
const MOST_FILES: u32 = 1_000;
/// Between two wishes for the key frame that a file is to begin or to go on with.
const KEY_FRAME_RETRY: Duration = Duration::from_secs(1);
/// How long a segment that is to finish waits for retransmissions: on a path that loses packets all the time there is
/// always one missing. Longer than a receiver waits for one.
const FINISH_WAIT: Duration = Duration::from_secs(2);

pub(crate) struct Recording {
    order: SegmentOrder,
    control: Arc<SegmentControl>,
    told: watch::Sender<Arc<SegmentFacts>>,
    facts: SegmentFacts,
    receiver: Option<TrackReceiver>,
    file: Option<OpenFile>,
    closing: Vec<ClosingFile>,
    /// Figures of files of this order that are over.
    before: SegmentFacts,
    because: OpenedBecause,
    need_key: bool,
    key_asked: Option<BootTime>,
    /// Frames were dropped for want of room, and none has been written since.
    starved: bool,
    last_progress: Option<BootTime>,
    bytes_at_progress: u64,
    /// What the totals have of this segment.
    counted: Ledger,
    read_to_end: bool,
    /// Packets that arrived earlier belong to a pause and are passed over, as are those that the ring does not admit.
    fresh_after: Option<BootTime>,
    /// The first failure of this segment or of one of its files.
    failure: Option<Failure>,
}

impl Recording {
    pub(crate) fn new(
        order: SegmentOrder,
        control: Arc<SegmentControl>,
        told: watch::Sender<Arc<SegmentFacts>>,
    ) -> Self {
        let because = order.opened_because;
        let need_key = order.ring.info.kind == MediaKind::Video;
        Self {
            order,
            control,
            told,
            facts: SegmentFacts::default(),
            receiver: None,
            file: None,
            closing: Vec::new(),
            before: SegmentFacts::default(),
            because,
            need_key,
            key_asked: None,
            starved: false,
            last_progress: None,
            bytes_at_progress: 0,
            counted: Ledger::default(),
            read_to_end: false,
            fresh_after: None,
            failure: None,
        }
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.order.id
    }

    pub(crate) fn is_over(&self) -> bool {
        self.facts.phase.is_over()
    }

    /// As if its writer had asked, for an end that no writer asked for.
    pub(crate) fn finish_now(&self, now: BootTime) {
        if self.control.finish_requested().is_none() {
            self.control.finish(now);
        }
    }

    /// Its ring is not yet read to the end of its share.
    pub(crate) fn is_reading(&self) -> bool {
        !self.read_to_end
    }

    /// Takes what has come, writes what is ready.
    pub(crate) fn turn(&mut self, world: &PumpWorld) {
        // Before the ring is emptied: what arrived before this instant has been pushed when it is used.
        let now = world.clock.now();
        if !self.read_to_end {
            if !self.take_ring(world, now) {
                return;
            }
            visit(Point::Pump, &self.order.writer);
            let ended = self.order.ring.has_ended();
            let emptied = self.read(world, now);
            if emptied && (ended || self.may_finish(now)) {
                self.finish_reading(world, now, ended);
            }
        }
        if let Some(failure) = self.file.as_ref().and_then(|file| file.failure().cloned()) {
            self.fail(failure);
        }
        if let Some(file) = &mut self.file {
            file.flush(&self.order.session, now);
        }
        self.collect_closed(world, now);
        if self.last_progress.is_none_or(|last| now.saturating_since(last) >= PROGRESS_EVERY) {
            self.progress(world, now);
        }
    }

    /// It was asked to, and nothing is awaited that may still come.
    fn may_finish(&self, now: BootTime) -> bool {
        let Some(asked) = self.control.finish_requested() else { return false };
        let waits = self.receiver.as_ref().is_some_and(|receiver| receiver.deadline().is_some());
        !waits || now.saturating_since(asked) >= FINISH_WAIT
    }

    /// Becomes the ring's reader, once the segment before has read its share.
    fn take_ring(&mut self, world: &PumpWorld, now: BootTime) -> bool {
        if self.receiver.is_some() || self.fresh_after.is_some() {
            return true;
        }
        let ring = &self.order.ring;
        if !ring.claim(self.order.id) {
            return false;
        }
        self.fresh_after = self.pause_before(now);
        if self.fresh_after.is_none() {
            let carried = ring.take_carried();
            self.take_up(world, now, carried);
        }
        true
    }

    /// Begins to read: with what the segment before left, or afresh.
    fn take_up(&mut self, world: &PumpWorld, now: BootTime, carried: Option<TrackReceiver>) {
        let ring = &self.order.ring;
        self.receiver = Some(carried.unwrap_or_else(|| {
            TrackReceiver::new(
                ring.info.codec,
                ring.info.clock_rate,
                ReceiverSettings::default(),
                ring.taken(),
            )
        }));
        if ring.info.kind == MediaKind::Video {
            self.ask_key_frame(world, now);
        }
    }

    /// Whether the ring was seen empty.
    fn read(&mut self, world: &PumpWorld, now: BootTime) -> bool {
        for _ in 0..MOST_PER_TURN {
            if self.is_opted_out() {
                self.discard();
                return false;
            }
            match self.order.ring.pop() {
                Some(RingItem::Packet(mut packet)) => {
                    let arrival = packet.arrival;
                    if self.is_of_a_pause(world, &mut packet, now) {
                        continue;
                    }
                    self.order.ring.note_taken(packet.ingress);
                    if let Some(receiver) = &mut self.receiver {
                        receiver.push(packet);
                    }
                    self.drain_outputs(world, arrival);
                }
                Some(RingItem::Report(report)) => lock(&self.order.sender_clock).observe_report(&report),
                None => {
                    self.drain_outputs(world, now);
                    return true;
                }
            }
        }
        false
    }

    fn drain_outputs(&mut self, world: &PumpWorld, now: BootTime) {
        while let Some(output) = self.receiver.as_mut().and_then(|receiver| receiver.poll(now)) {
            match output {
                ReceiverOutput::Frame(frame) => self.frame(world, frame),
                ReceiverOutput::KeyFrameWanted => self.ask_key_frame(world, now),
                ReceiverOutput::FormatChanged(change) => self.next_file(change),
            }
        }
    }

    fn ask_key_frame(&mut self, world: &PumpWorld, now: BootTime) {
        self.key_asked = Some(now);
        Totals::count(&world.board.totals.key_frames_requested);
        let order = &self.order;
        world.media.request_key_frame(order.connection, order.mid.clone(), order.ring.info.id);
    }

    /// Nothing can be written before a key frame; senders make one when asked, and the asking may be lost.
    fn await_key_frame(&mut self, world: &PumpWorld, now: BootTime) {
        self.need_key = true;
        if self.key_asked.is_none_or(|asked| now.saturating_since(asked) >= KEY_FRAME_RETRY) {
            self.ask_key_frame(world, now);
        }
    }

    fn frame(&mut self, world: &PumpWorld, frame: EncodedFrame) {
        let info = &self.order.ring.info;
        let kind = info.kind;
        lock(&self.order.sender_clock).observe_packet(
            info.ssrc,
            info.clock_rate,
            frame.rtp_time,
            frame.audio.map_or(0, |sound| sound.duration_samples),
            frame.first_arrival,
        );
        if !world.lanes.has_room(kind) {
            // The disk does not keep up: video waits for its next key frame, audio resumes with the next packet.
            if kind == MediaKind::Video {
                self.await_key_frame(world, frame.last_arrival);
            }
            self.starved = true;
            self.reject(frame.packets, Reason::DroppedByUs);
            return;
        }
        if self.need_key && !frame.key {
            self.await_key_frame(world, frame.last_arrival);
            let reason = if self.starved { Reason::DroppedByUs } else { Reason::BeforeKeyFrame };
            self.reject(frame.packets, reason);
            return;
        }
        if self.file.is_none() && self.facts.files >= MOST_FILES {
            // A sender that changes its format with every key frame must not fill the folder with files.
            self.reject(frame.packets, Reason::OtherLayer);
            return;
        }
        self.need_key = false;
        self.write(world, &frame);
    }

    fn reject(&mut self, packets: u32, reason: Reason) {
        if let Some(receiver) = &mut self.receiver {
            receiver.reject(packets.into(), reason);
        }
    }

    fn write(&mut self, world: &PumpWorld, frame: &EncodedFrame) {
        let reconnected = self.control.take_reconnect() && frame.discontinuity;
        let noted = self.control.take_pause_cause().or(reconnected.then_some(GapCause::Reconnect));
        let cause = if std::mem::take(&mut self.starved) { Some(GapCause::Disk) } else { noted };
        let opens = self.file.is_none();
        let (order, because) = (&self.order, self.because);
        let file = self.file.get_or_insert_with(|| OpenFile::open(world, order, because, frame));
        if opens {
            Totals::count(&world.board.totals.segments_opened);
            self.facts.files += 1;
            self.facts.file = Some(file.name().to_owned());
            self.facts.phase = SegmentPhase::Writing;
        }
        if let Err(error) = file.write(frame, cause) {
            tracing::warn!(file = file.name(), %error, "a frame cannot be written");
            self.reject(frame.packets, Reason::DroppedByUs);
            if self.order.ring.info.kind == MediaKind::Video {
                self.await_key_frame(world, frame.last_arrival);
            }
            return;
        }
        self.facts.last_frame = Some(frame.last_arrival);
        let size = frame.video.as_ref().map(|video| (Some(video.width), Some(video.height)));
        let resized = size.is_some_and(|size| size != (self.facts.width, self.facts.height));
        if let (true, Some(size)) = (resized, size) {
            (self.facts.width, self.facts.height) = size;
        }
        if opens || resized {
            self.publish();
        }
    }

    /// Parameter sets or the sender's RTP clock changed: the next frame begins the next file of this order.
    fn next_file(&mut self, change: FormatChange) {
        self.need_key = self.order.ring.info.kind == MediaKind::Video;
        // Before the first file there is none to end: what came so far belongs to the file that is yet to begin.
        let Some(file) = self.file.take() else { return };
        let ledger = self.receiver.as_mut().map(TrackReceiver::split).unwrap_or_default();
        self.closing.push(file.close(&self.order, ledger));
        self.because = match change {
            FormatChange::ParameterSets => OpenedBecause::ParameterSetsChanged,
            FormatChange::RtpClock => OpenedBecause::Reconnected,
        };
    }

    /// Nothing more is read: give up waiting, write what is whole, close.
    fn finish_reading(&mut self, world: &PumpWorld, now: BootTime, ended: bool) {
        if let Some(receiver) = &mut self.receiver {
            receiver.drain();
        }
        self.drain_outputs(world, now);
        let ring = &self.order.ring;
        let ledger = self.receiver.as_mut().map(|receiver| {
            if ended {
                let total = ring.counters.received.load(Relaxed);
                // A further segment on this ring finds nothing.
                ring.note_taken(total);
                receiver.finish(ring.take_tail(), total)
            } else {
                receiver.split()
            }
        });
        if let Some(receiver) = self.receiver.take().filter(|_| !ended) {
            // The next segment on this ring knows by it what came late or twice.
            ring.carry(receiver);
        }
        self.end_reading(ledger.unwrap_or_default(), |file, order, ledger| file.close(order, ledger));
    }

    /// The segment cannot go on: what came is kept as far as it reached the disk, what waits for its order belongs to the
    /// next segment on this ring. [`SegmentPhase::Failed`] is told when the file is closed.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        let mut ledger = Ledger::default();
        if let Some(mut receiver) = self.receiver.take() {
            ledger = receiver.split();
            // What a panic took with it was lost by us.
            ledger.dropped_by_us += ledger.received.saturating_sub(ledger.accounted());
            self.order.ring.carry(receiver);
        }
        self.end_reading(ledger, |file, _, ledger| file.abandon(ledger));
    }

    fn end_reading(
        &mut self,
        mut ledger: Ledger,
        close: impl FnOnce(OpenFile, &SegmentOrder, Ledger) -> ClosingFile,
    ) {
        match self.file.take() {
            Some(file) => self.closing.push(close(file, &self.order, ledger)),
            None => {
                // No file is there to say what came: it is counted all the same.
                not_written(&mut ledger, 0);
                self.before.ledger.add(&ledger);
            }
        }
        self.read_to_end = true;
        self.order.ring.release(self.order.id);
        self.facts.phase = SegmentPhase::Finishing;
        self.publish();
    }

    /// Tells the session of files that are over. The segment is over when they all are.
    fn collect_closed(&mut self, world: &PumpWorld, now: BootTime) {
        let mut index = 0;
        while let Some(closing) = self.closing.get_mut(index) {
            closing.admit(&self.order.session, now);
            if !closing.is_over() {
                index += 1;
                continue;
            }
            let over = self.closing.remove(index).into_over();
            Totals::count(&world.board.totals.segments_closed);
            self.before.ledger.add(&over.segment.ledger);
            self.before.frames += over.segment.frames;
            self.before.bytes += over.segment.bytes;
            self.before.media_seconds += over.segment.media_seconds.as_f64();
            self.facts.closed.push(over.closed);
            let segment = Box::new(over.segment);
            self.order.session.tell(Record::SegmentClosed { file: segment.file.clone(), segment });
            if self.failure.is_none() {
                self.failure = over.failure;
            }
        }
        if self.read_to_end && self.closing.is_empty() && !self.is_over() {
            self.tally(world, Ledger::default());
            self.end();
        }
    }

    /// As [`Self::fail`] where even that panics: no more is asked of this segment.
    pub(crate) fn give_up(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        self.order.ring.release(self.order.id);
        self.end();
    }

    fn end(&mut self) {
        self.facts.bits_per_second = 0;
        self.facts.phase = match self.failure.take() {
            Some(failure) => SegmentPhase::Failed(failure),
            None => SegmentPhase::Closed,
        };
        self.publish();
    }

    fn progress(&mut self, world: &PumpWorld, now: BootTime) {
        if self.is_over() {
            return;
        }
        let ledger = self.settled_ledger();
        if let Some(file) = &mut self.file {
            let progress = file.progress(&self.order, ledger.clone());
            self.order.session.tell(Record::SegmentProgress(progress));
        }
        self.tally(world, ledger);
        if let Some(last) = self.last_progress {
            let elapsed = now.seconds_since(last).max(0.001);
            let bytes = self.facts.bytes.saturating_sub(self.bytes_at_progress);
            self.facts.bits_per_second = (bytes as f64 * 8.0 / elapsed) as u64;
        }
        self.bytes_at_progress = self.facts.bytes;
        self.last_progress = Some(now);
        self.publish();
    }

    /// Without packets whose fate is open: they may yet belong to the next segment.
    fn settled_ledger(&self) -> Ledger {
        let Some(receiver) = &self.receiver else { return Ledger::default() };
        let mut ledger = receiver.ledger().clone();
        ledger.received = ledger.received.saturating_sub(receiver.in_flight());
        ledger
    }

    /// Brings the figures up to date; `ledger` is that of the open file. Totals take what has come on top.
    fn tally(&mut self, world: &PumpWorld, ledger: Ledger) {
        let mut sum = self.before.ledger.clone();
        sum.add(&ledger);
        let before = &self.before;
        let mut all =
            Figures { frames: before.frames, bytes: before.bytes, media_seconds: before.media_seconds };
        let mut count = |figures: Figures| {
            all.frames += figures.frames;
            all.bytes += figures.bytes;
            all.media_seconds += figures.media_seconds;
        };
        for closing in &mut self.closing {
            sum.add(closing.ledger());
            count(closing.figures());
        }
        if let Some(file) = &mut self.file {
            count(file.figures());
        }
        (self.facts.frames, self.facts.bytes, self.facts.media_seconds) =
            (all.frames, all.bytes, all.media_seconds);
        let totals = &world.board.totals;
        for (total, now, then) in [
            (&totals.packets_received, sum.received, self.counted.received),
            (&totals.packets_recovered, sum.recovered, self.counted.recovered),
            (&totals.packets_lost, sum.lost, self.counted.lost),
            (&totals.packets_dropped_by_us, sum.dropped_by_us, self.counted.dropped_by_us),
        ] {
            total.fetch_add(now.saturating_sub(then), Relaxed);
        }
        self.counted.clone_from(&sum);
        self.facts.ledger = sum;
    }

    fn publish(&self) {
        self.told.send_replace(Arc::new(self.facts.clone()));
    }
}
