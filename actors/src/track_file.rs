//! One segment on its way from ring to file: the part of a pump that knows a track.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use recorder_core::ids::SegmentId;
use recorder_core::manifest::{
    AudioFormat, GapCause, Ledger, OpenedBecause, Record, Resolution, Rotation, Seconds, Segment,
    SegmentOpened, SegmentProgress, VideoFormat,
};
use recorder_core::media::{Codec, MediaKind, RingItem};
use recorder_core::mux::{self, FinalFacts, MatroskaWriter, TrackHeader};
use recorder_core::rtp::{
    EncodedFrame, FormatChange, ParameterSets, Reason, ReceiverOutput, ReceiverSettings, TrackReceiver,
};
use recorder_core::time::BootTime;
use tokio::sync::watch;

use crate::clock_fit;
use crate::lane::LaneFile;
use crate::observe::Totals;
use crate::pump::PumpWorld;
use crate::segment::{ClosedFile, SegmentControl, SegmentFacts, SegmentOrder, SegmentPhase};
use crate::supervise::lock;
use crate::testing::{Point, visit};

/// A cluster reaches its lane this long after its first frame at the latest.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Progress goes to the journal, and figures to the board, this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Packets one turn takes from one ring, so that a flooded track does not starve the others.
const MOST_PER_TURN: usize = 2048;
/// Pauses from this length on are listed as gaps (session manifest, "gaps").
const GAP_S: f64 = 1.0;
/// Files that one order may open.
const MOST_FILES: u32 = 1_000;
/// Gaps, resolutions and rotations one file may list.
const MOST_LISTED: usize = 10_000;

/// What was handed to the lane and is not yet on the disk, so that a failed write is counted right.
struct Chunk {
    end: u64,
    frames: u64,
    packets: u64,
}

struct OpenFile {
    name: String,
    lane: LaneFile,
    mux: MatroskaWriter,
    out: Vec<u8>,
    handed: u64,
    first_rtp: i64,
    last_rtp: i64,
    /// Length of the last frame in RTP units, as known or as the frame before was long.
    last_span: i64,
    last_ms: u64,
    segment: Segment,
    media_units: i64,
    dtx_units: u64,
    chunks: VecDeque<Chunk>,
    pending: Chunk,
    first_unflushed: Option<BootTime>,
}

/// Closed by us, not yet synced.
struct ClosingFile {
    lane: Arc<crate::lane::FileState>,
    segment: Segment,
}

pub(crate) struct Recording {
    order: SegmentOrder,
    control: Arc<SegmentControl>,
    told: watch::Sender<Arc<SegmentFacts>>,
    facts: SegmentFacts,
    receiver: Option<TrackReceiver>,
    file: Option<OpenFile>,
    closing: Vec<ClosingFile>,
    /// Figures of files of this order that are closed.
    before: SegmentFacts,
    because: OpenedBecause,
    need_key: bool,
    last_progress: BootTime,
    bytes_at_progress: u64,
    counted: Ledger,
    read_to_end: bool,
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
            last_progress: BootTime::default(),
            bytes_at_progress: 0,
            counted: Ledger::default(),
            read_to_end: false,
        }
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.order.id
    }

    pub(crate) fn is_over(&self) -> bool {
        self.facts.phase.is_over()
    }

    /// Takes what has come, writes what is ready.
    pub(crate) fn turn(&mut self, world: &PumpWorld) {
        // Before the ring is emptied: what arrived before this instant has been pushed when it is used.
        let now = world.clock.now();
        if !self.read_to_end {
            if !self.take_ring(world) {
                return;
            }
            visit(Point::Pump, self.order.names.track.as_str());
            let ended = self.order.ring.has_ended();
            let emptied = self.read(world, now);
            let waits = self.receiver.as_ref().is_some_and(|receiver| receiver.deadline().is_some());
            if emptied && (ended || (self.control.is_finishing() && !waits)) {
                self.finish_reading(world, now, ended);
            }
        }
        let failure = self.file.as_ref().and_then(|file| file.lane.state().failure().map(str::to_owned));
        if let Some(why) = failure {
            self.fail(world, &why);
            return;
        }
        self.flush(now, false);
        self.collect_closed(world);
        if now.saturating_since(self.last_progress) >= PROGRESS_EVERY {
            self.progress(world, now);
        }
    }

    /// Becomes the ring's reader, once the segment before has read its share.
    fn take_ring(&mut self, world: &PumpWorld) -> bool {
        if self.receiver.is_some() {
            return true;
        }
        let ring = &self.order.ring;
        if !ring.claim(self.order.id) {
            return false;
        }
        self.receiver = Some(ring.take_carried().unwrap_or_else(|| {
            TrackReceiver::new(
                ring.info.codec,
                ring.info.clock_rate,
                ReceiverSettings::default(),
                ring.taken(),
            )
        }));
        if ring.info.kind == MediaKind::Video {
            self.ask_key_frame(world);
        }
        true
    }

    /// Whether the ring was seen empty.
    fn read(&mut self, world: &PumpWorld, now: BootTime) -> bool {
        for _ in 0..MOST_PER_TURN {
            match self.order.ring.pop() {
                Some(RingItem::Packet(packet)) => {
                    let arrival = packet.arrival;
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
                ReceiverOutput::KeyFrameWanted => self.ask_key_frame(world),
                ReceiverOutput::FormatChanged(change) => self.next_file(world, change),
            }
        }
    }

    fn ask_key_frame(&self, world: &PumpWorld) {
        Totals::count(&world.board.totals.key_frames_requested);
        let order = &self.order;
        world.media.request_key_frame(order.connection, order.mid.clone(), order.ring.info.id);
    }

    fn frame(&mut self, world: &PumpWorld, frame: EncodedFrame) {
        let info = &self.order.ring.info;
        lock(&self.order.sender_clock).observe_packet(
            info.ssrc,
            info.clock_rate,
            frame.rtp_time,
            frame.first_arrival,
        );
        if self.need_key && !frame.key {
            self.reject(frame.packets, Reason::BeforeKeyFrame);
            return;
        }
        if !world.lanes.has_room(info.kind) {
            // The disk does not keep up: video waits for its next key frame, audio resumes with the next packet.
            if info.kind == MediaKind::Video && !self.need_key {
                self.need_key = true;
                self.ask_key_frame(world);
            }
            self.reject(frame.packets, Reason::DroppedByUs);
            return;
        }
        self.need_key = false;
        if self.file.is_none() {
            if self.facts.files >= MOST_FILES {
                // A sender that changes its format with every key frame must not fill the folder with files.
                self.reject(frame.packets, Reason::OtherLayer);
                return;
            }
            self.open_file(world, &frame);
        }
        self.write(&frame);
    }

    fn reject(&mut self, packets: u32, reason: Reason) {
        if let Some(receiver) = &mut self.receiver {
            receiver.reject(packets, reason);
        }
    }

    fn open_file(&mut self, world: &PumpWorld, frame: &EncodedFrame) {
        let order = &self.order;
        let info = &order.ring.info;
        let name = order.session.name_segment(&order.names.participant, order.names.source, info.codec);
        let estimate = clock_fit::fit(order, frame.rtp_time, 0.0);
        let start_s = estimate.start_s;
        let audio =
            frame.audio.map(|_| AudioFormat { channels: info.channels, sample_rate: info.clock_rate });
        let size = frame.video.as_ref().map(|video| (video.width, video.height));
        let video = size.map(|(width, height)| VideoFormat {
            resolutions: vec![Resolution { at_s: start_s, width, height }],
            rotations: frame
                .rotation
                .map(|degrees| Rotation { at_s: start_s, degrees })
                .into_iter()
                .collect(),
        });
        let opened = SegmentOpened {
            track: order.names.track.clone(),
            file: name.clone(),
            codec: info.codec.into(),
            start_s,
            opened_because: self.because.into(),
            clock_uncertain_s: None,
            video,
            audio,
        };
        // The opening stands in the journal before the media it describes.
        order.session.tell(Record::SegmentOpened(opened.clone()));
        Totals::count(&world.board.totals.segments_opened);
        let header = TrackHeader {
            codec: info.codec,
            writing_app: world.writing_app.clone(),
            title: order.names.title.clone(),
            session_id: order.session.session_id().to_string(),
            participant: order.names.participant.to_string(),
            source: order.names.source.name().to_owned(),
            provisional_start_s: start_s.as_f64(),
            epoch_utc_micros: Some(order.session.clock().epoch().as_micros() + start_s.as_micros() as i64),
            track_uid: order.id.0 << 1 | 1,
            audio: audio
                .map(|audio| mux::AudioFormat { channels: audio.channels, sample_rate: audio.sample_rate }),
            video: size.map(|(width, height)| mux::VideoFormat { width, height }),
            codec_private: codec_private(info.codec, frame),
        };
        let mut out = Vec::with_capacity(64 << 10);
        let mux = MatroskaWriter::new(&header, &mut out);
        let lane = world.lanes.create(order.folder.join(&name));
        let segment = Segment {
            file: name.clone(),
            codec: info.codec.into(),
            start_s,
            end_s: start_s,
            media_seconds: Seconds::ZERO,
            frames: 0,
            bytes: 0,
            sha256: None,
            is_final: false,
            opened_because: self.because.into(),
            clock_map: estimate.map,
            clock: estimate.clock,
            ledger: Ledger::default(),
            gaps: Vec::new(),
            dtx_s: Seconds::ZERO,
            clock_uncertain_s: None,
            video: opened.video,
            audio: opened.audio,
        };
        self.facts.files += 1;
        self.facts.file = Some(name.clone());
        self.facts.phase = SegmentPhase::Writing;
        self.file = Some(OpenFile {
            name,
            lane,
            mux,
            out,
            handed: 0,
            first_rtp: frame.rtp_time,
            last_rtp: frame.rtp_time,
            last_span: 0,
            last_ms: 0,
            segment,
            media_units: 0,
            dtx_units: 0,
            chunks: VecDeque::new(),
            pending: Chunk { end: 0, frames: 0, packets: 0 },
            first_unflushed: None,
        });
        self.publish();
    }

    fn write(&mut self, frame: &EncodedFrame) {
        let cause = self.control.take_pause_cause();
        let Some(file) = &mut self.file else { return };
        let rate = i64::from(self.order.ring.info.clock_rate);
        let since_first = frame.rtp_time - file.first_rtp;
        let ms = ((since_first * 1000 + rate / 2) / rate).max(0) as u64;
        if file.mux.write_frame(ms, frame.key, &frame.data, &mut file.out).is_err() {
            self.reject(frame.packets, Reason::DroppedByUs);
            return;
        }
        file.first_unflushed.get_or_insert(frame.last_arrival);
        file.pending.frames += 1;
        file.pending.packets += u64::from(frame.packets);
        file.note_time(frame, rate, cause);
        file.last_ms = ms;
        self.facts.frames = self.before.frames + file.mux.frames();
        self.facts.last_frame = Some(frame.last_arrival);
        if let Some(video) = &frame.video {
            if (self.facts.width, self.facts.height) != (Some(video.width), Some(video.height)) {
                (self.facts.width, self.facts.height) = (Some(video.width), Some(video.height));
                self.publish();
            }
        }
    }

    /// Hands finished clusters to the lane.
    fn flush(&mut self, now: BootTime, all: bool) {
        let Some(file) = &mut self.file else { return };
        let due = file.first_unflushed.is_some_and(|first| now.saturating_since(first) >= FLUSH_EVERY);
        if due || all {
            file.mux.flush(&mut file.out);
            file.first_unflushed = None;
        }
        if file.out.is_empty() || !(due || all || file.out.len() > (256 << 10)) {
            return;
        }
        let bytes = std::mem::take(&mut file.out);
        file.handed += bytes.len() as u64;
        let mut chunk = std::mem::replace(&mut file.pending, Chunk { end: 0, frames: 0, packets: 0 });
        chunk.end = file.handed;
        file.chunks.push_back(chunk);
        file.lane.append(bytes);
        let written = file.lane.state().written();
        while file.chunks.front().is_some_and(|chunk| chunk.end <= written) {
            file.chunks.pop_front();
        }
    }

    /// Parameter sets or the sender's RTP clock changed: the next frame begins the next file of this order.
    fn next_file(&mut self, world: &PumpWorld, change: FormatChange) {
        let ledger = self.receiver.as_mut().map(TrackReceiver::split).unwrap_or_default();
        self.close_file(world, ledger);
        self.because = match change {
            FormatChange::ParameterSets => OpenedBecause::ParameterSetsChanged,
            FormatChange::RtpClock => OpenedBecause::Reconnected,
        };
        self.need_key = self.order.ring.info.kind == MediaKind::Video;
    }

    /// Nothing more is read: give up waiting, write what is whole, close.
    fn finish_reading(&mut self, world: &PumpWorld, now: BootTime, ended: bool) {
        if let Some(receiver) = &mut self.receiver {
            receiver.drain();
        }
        self.drain_outputs(world, now);
        let ring = Arc::clone(&self.order.ring);
        let ledger = self.receiver.take().map(|mut receiver| {
            if ended {
                let total = ring.counters.received.load(std::sync::atomic::Ordering::Relaxed);
                receiver.finish(ring.take_tail(), total)
            } else {
                let last = receiver.last_ingress();
                receiver.finish(recorder_core::media::Skipped::default(), last)
            }
        });
        self.read_to_end = true;
        ring.release(self.order.id);
        self.facts.phase = SegmentPhase::Finishing;
        self.close_file(world, ledger.unwrap_or_default());
        self.publish();
    }

    /// Cues, duration, the final clock; then the lane syncs and [`Self::collect_closed`] tells.
    fn close_file(&mut self, world: &PumpWorld, ledger: Ledger) {
        self.flush(BootTime(u64::MAX), true);
        let Some(mut file) = self.file.take() else {
            // No frame was ever written: what came is counted all the same.
            self.count_ledger(world, &ledger);
            self.add_before(&ledger, 0, 0, 0.0);
            return;
        };
        let rate = f64::from(self.order.ring.info.clock_rate);
        let span_s = (file.last_rtp - file.first_rtp + file.last_span) as f64 / rate;
        let mut tail = std::mem::take(&mut file.out);
        let finished = file.mux.finish(&mut tail, FinalFacts { duration_s: span_s });
        file.lane.append(tail);
        let estimate = clock_fit::fit(&self.order, file.first_rtp, span_s);
        let segment = &mut file.segment;
        segment.start_s = estimate.start_s;
        segment.clock_map = estimate.map;
        segment.clock = estimate.clock;
        segment.end_s = segment.session_time(Seconds::new(span_s));
        segment.media_seconds = Seconds::new(file.media_units as f64 / rate);
        segment.dtx_s = Seconds::new(file.dtx_units as f64 / rate);
        segment.frames = finished.frames;
        segment.bytes = finished.length;
        segment.ledger = ledger.clone();
        segment.is_final = true;
        self.count_ledger(world, &ledger);
        self.add_before(&ledger, finished.frames, finished.length, segment.media_seconds.as_f64());
        self.facts.closed.push(ClosedFile {
            file: segment.file.clone(),
            ssrc: self.order.ring.info.ssrc,
            first_rtp: file.first_rtp,
            span_s,
        });
        let state = Arc::clone(file.lane.state());
        file.lane.finish(finished.patches.into_iter().map(|patch| (patch.offset, patch.bytes)).collect());
        self.closing.push(ClosingFile { lane: state, segment: file.segment });
    }

    fn add_before(&mut self, ledger: &Ledger, frames: u64, bytes: u64, media_seconds: f64) {
        add(&mut self.before.ledger, ledger);
        self.before.frames += frames;
        self.before.bytes += bytes;
        self.before.media_seconds += media_seconds;
        self.facts.frames = self.before.frames;
        self.facts.bytes = self.before.bytes;
        self.facts.media_seconds = self.before.media_seconds;
        self.facts.ledger = self.before.ledger.clone();
    }

    fn collect_closed(&mut self, world: &PumpWorld) {
        let mut failure = None;
        let session = &self.order.session;
        let totals = &world.board.totals;
        self.closing.retain_mut(|closing| {
            if !closing.lane.is_finished() {
                return true;
            }
            if let Some(why) = closing.lane.failure() {
                failure = Some(why.to_owned());
            }
            Totals::count(&totals.segments_closed);
            session.tell(Record::SegmentClosed {
                file: closing.segment.file.clone(),
                segment: Box::new(closing.segment.clone()),
            });
            false
        });
        if self.read_to_end && self.closing.is_empty() && !self.is_over() {
            self.facts.phase = match failure {
                Some(why) => SegmentPhase::Failed(why),
                None => SegmentPhase::Closed,
            };
            self.publish();
        }
    }

    /// The segment cannot go on: close its file as it is, count what did not reach the disk, free the ring.
    pub(crate) fn fail(&mut self, world: &PumpWorld, why: &str) {
        let ring = Arc::clone(&self.order.ring);
        let mut ledger = Ledger::default();
        if let Some(mut receiver) = self.receiver.take() {
            ledger = receiver.split();
            // What waits for its order belongs to the next segment on this ring.
            ring.carry(receiver);
        }
        if let Some(mut file) = self.file.take() {
            let written = file.lane.state().written();
            let mut lost = std::mem::replace(&mut file.pending, Chunk { end: 0, frames: 0, packets: 0 });
            for chunk in file.chunks.drain(..).filter(|chunk| chunk.end > written) {
                lost.frames += chunk.frames;
                lost.packets += chunk.packets;
            }
            ledger.written = ledger.written.saturating_sub(lost.packets);
            ledger.dropped_by_us += lost.packets;
            let rate = f64::from(ring.info.clock_rate);
            let span_s = (file.last_rtp - file.first_rtp) as f64 / rate;
            let segment = &mut file.segment;
            segment.end_s = segment.session_time(Seconds::new(span_s));
            segment.media_seconds = Seconds::new(file.media_units as f64 / rate);
            segment.frames = file.mux.frames().saturating_sub(lost.frames);
            segment.bytes = written;
            segment.ledger = ledger.clone();
            segment.is_final = true;
            let state = Arc::clone(file.lane.state());
            file.lane.abandon();
            let (frames, seconds) = (segment.frames, segment.media_seconds.as_f64());
            self.closing.push(ClosingFile { lane: state, segment: file.segment });
            self.count_ledger(world, &ledger);
            self.add_before(&ledger, frames, written, seconds);
        } else {
            self.count_ledger(world, &ledger);
            self.add_before(&ledger, 0, 0, 0.0);
        }
        ring.release(self.order.id);
        self.read_to_end = true;
        for closing in self.closing.drain(..) {
            self.order.session.tell(Record::SegmentClosed {
                file: closing.segment.file.clone(),
                segment: Box::new(closing.segment),
            });
        }
        self.facts.phase = SegmentPhase::Failed(why.to_owned());
        self.publish();
    }

    fn progress(&mut self, world: &PumpWorld, now: BootTime) {
        let ledger = self.receiver.as_ref().map(|receiver| receiver.ledger().clone()).unwrap_or_default();
        self.count_ledger(world, &ledger);
        if let Some(file) = &mut self.file {
            let rate = f64::from(self.order.ring.info.clock_rate);
            let span_s = (file.last_rtp - file.first_rtp + file.last_span) as f64 / rate;
            let estimate = clock_fit::fit(&self.order, file.first_rtp, span_s);
            let segment = &mut file.segment;
            segment.start_s = estimate.start_s;
            segment.clock_map.clone_from(&estimate.map);
            segment.clock.clone_from(&estimate.clock);
            segment.end_s = segment.session_time(Seconds::new(span_s));
            segment.media_seconds = Seconds::new(file.media_units as f64 / rate);
            segment.dtx_s = Seconds::new(file.dtx_units as f64 / rate);
            segment.frames = file.mux.frames();
            segment.bytes = file.handed;
            self.order.session.tell(Record::SegmentProgress(SegmentProgress {
                file: file.name.clone(),
                end_s: segment.end_s,
                media_seconds: segment.media_seconds,
                frames: segment.frames,
                bytes: segment.bytes,
                dtx_s: segment.dtx_s,
                ledger: ledger.clone(),
                clock_map: Some(estimate.map),
                clock: Some(estimate.clock),
                resolutions: segment.video.as_ref().map(|video| video.resolutions.clone()),
                rotations: segment.video.as_ref().map(|video| video.rotations.clone()),
                audio: segment.audio,
            }));
            self.facts.bytes = self.before.bytes + file.handed;
            self.facts.media_seconds = self.before.media_seconds + segment.media_seconds.as_f64();
        }
        let mut sum = self.before.ledger.clone();
        add(&mut sum, &ledger);
        self.facts.ledger = sum;
        let elapsed = now.seconds_since(self.last_progress).max(0.001);
        if self.last_progress != BootTime::default() {
            let bytes = self.facts.bytes.saturating_sub(self.bytes_at_progress);
            self.facts.bits_per_second = (bytes as f64 * 8.0 / elapsed) as u64;
        }
        self.bytes_at_progress = self.facts.bytes;
        self.last_progress = now;
        self.publish();
    }

    /// Adds to the totals what this file's ledger has grown by since the last time.
    fn count_ledger(&mut self, world: &PumpWorld, ledger: &Ledger) {
        use std::sync::atomic::Ordering::Relaxed;
        let totals = &world.board.totals;
        let mut sum = self.before.ledger.clone();
        add(&mut sum, ledger);
        let grown = |now: u64, then: u64| now.saturating_sub(then);
        totals.packets_received.fetch_add(grown(sum.received, self.counted.received), Relaxed);
        totals.packets_recovered.fetch_add(grown(sum.recovered, self.counted.recovered), Relaxed);
        totals.packets_lost.fetch_add(grown(sum.lost, self.counted.lost), Relaxed);
        totals.packets_dropped_by_us.fetch_add(grown(sum.dropped_by_us, self.counted.dropped_by_us), Relaxed);
        self.counted = sum;
    }

    fn publish(&self) {
        self.told.send_replace(Arc::new(self.facts.clone()));
    }
}

impl OpenFile {
    /// Times, pauses and pictures of a frame that was written.
    fn note_time(&mut self, frame: &EncodedFrame, rate: i64, cause: Option<GapCause>) {
        let since_first = |units: i64| Seconds::new((units - self.first_rtp) as f64 / rate as f64);
        let here = self.segment.session_time(since_first(frame.rtp_time));
        let first = self.mux.frames() == 1;
        let step = frame.rtp_time - self.last_rtp;
        let pause = if first { 0 } else { step - self.last_span };
        if pause as f64 / rate as f64 >= GAP_S {
            let from_s = self.segment.session_time(since_first(self.last_rtp + self.last_span));
            let because =
                cause.unwrap_or(if frame.discontinuity { GapCause::Loss } else { GapCause::Silence });
            if self.segment.gaps.len() < MOST_LISTED {
                self.segment.gaps.push(recorder_core::manifest::Gap {
                    from_s,
                    to_s: here,
                    cause: because.into(),
                });
            }
        } else if let Some(audio) = frame.audio {
            self.dtx_units += audio.silence_samples;
        }
        let span = match frame.audio {
            Some(audio) => i64::from(audio.duration_samples),
            // A picture lasts until the next; of the last one only its predecessor's length is known.
            None if first => 0,
            None if (pause as f64) < GAP_S * rate as f64 => {
                self.media_units += step - self.last_span;
                step
            }
            None => self.last_span,
        };
        self.media_units += span;
        self.last_span = span;
        self.last_rtp = frame.rtp_time;
        if let (Some(video), Some(facts)) = (&mut self.segment.video, &frame.video) {
            let known = video.resolutions.last().map(|size| (size.width, size.height));
            if known != Some((facts.width, facts.height)) && video.resolutions.len() < MOST_LISTED {
                video.resolutions.push(Resolution { at_s: here, width: facts.width, height: facts.height });
            }
        }
        if let (Some(video), Some(degrees)) = (&mut self.segment.video, frame.rotation)
            && video.rotations.last().map(|rotation| rotation.degrees) != Some(degrees)
            && video.rotations.len() < MOST_LISTED
        {
            video.rotations.push(Rotation { at_s: here, degrees });
        }
    }
}

fn codec_private(codec: Codec, frame: &EncodedFrame) -> Option<Vec<u8>> {
    let sets = frame.video.as_ref().and_then(|video| video.parameter_sets.as_deref());
    fn refs(list: &[Vec<u8>]) -> Vec<&[u8]> {
        list.iter().map(Vec::as_slice).collect()
    }
    match (codec, sets) {
        (Codec::Vp9, _) => mux::vp9_codec_private(&frame.data),
        (Codec::Av1, Some(ParameterSets::Av1 { sequence_header })) => mux::av1c(sequence_header),
        (Codec::H264, Some(ParameterSets::H264 { sps, pps })) => mux::avcc(&refs(sps), &refs(pps)),
        (Codec::H265, Some(ParameterSets::H265 { vps, sps, pps })) => {
            mux::hvcc(&refs(vps), &refs(sps), &refs(pps))
        }
        _ => None,
    }
}

fn add(sum: &mut Ledger, other: &Ledger) {
    sum.received += other.received;
    sum.written += other.written;
    sum.duplicate += other.duplicate;
    sum.padding += other.padding;
    sum.late += other.late;
    sum.before_key_frame += other.before_key_frame;
    sum.incomplete_frame += other.incomplete_frame;
    sum.other_layer += other.other_layer;
    sum.undecryptable += other.undecryptable;
    sum.opted_out += other.opted_out;
    sum.injected += other.injected;
    sum.dropped_by_us += other.dropped_by_us;
    sum.recovered += other.recovered;
    sum.lost += other.lost;
}
