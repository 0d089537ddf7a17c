//! One media file on its way to the disk: muxer, times, and how much of it the disk has.

use std::collections::VecDeque;
use std::time::Duration;

use recorder_core::manifest::{
    AudioFormat, Gap, GapCause, Ledger, OpenedBecause, Record, Resolution, Rotation, Seconds, Segment,
    SegmentOpened, SegmentProgress, VideoFormat,
};
use recorder_core::media::Codec;
use recorder_core::mux::{self, FinalFacts, MatroskaWriter, MuxError, TrackHeader};
use recorder_core::rtp::{EncodedFrame, ParameterSets};
use recorder_core::time::BootTime;

use crate::clock_fit::{self, ClosedFile, Fit};
use crate::lane::LaneFile;
use crate::pump::PumpWorld;
use crate::segment::{Failure, SegmentOrder};
use crate::session::SessionHandle;

/// A cluster reaches its lane this long after its first frame at the latest.
const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Bytes that reach the lane at once.
const FLUSH_BYTES: usize = 256 << 10;
/// How long media waits for its segment's opening to be in the journal. A journal that the disk refuses for longer must
/// not cost media: the file's own header says what it is.
const JOURNAL_WAIT: Duration = Duration::from_secs(1);
/// Pauses from this length on are listed as gaps (session manifest, "gaps").
const GAP_S: f64 = 1.0;
/// Gaps, resolutions and rotations one file may list.
const MOST_LISTED: usize = 10_000;

/// What a file holds up to one of its bytes.
#[derive(Clone, Debug, Default)]
struct Mark {
    bytes: u64,
    frames: u64,
    packets: u64,
    media_units: i64,
    dtx_units: u64,
    /// From the first block to the end of the last, RTP units.
    span: i64,
}

/// What must be there before the lane may begin.
struct Opening {
    /// The fact of the session that the journal must hold.
    told: u64,
    /// Since when that is waited for; before it the session's folder is.
    since: Option<BootTime>,
}

/// What was handed to the lane, and what the manifest says of it.
struct Body {
    lane: LaneFile,
    opening: Option<Opening>,
    segment: Segment,
    ssrc: u32,
    rate: i64,
    first_rtp: i64,
    /// Seconds of media from the first block to the end of the last, as [`Self::segment`] describes it.
    span_s: f64,
    /// Handed over and not yet known to be on the disk.
    marks: VecDeque<Mark>,
    on_disk: Mark,
}

/// The file that frames are written to.
pub(crate) struct OpenFile {
    body: Body,
    mux: MatroskaWriter,
    out: Vec<u8>,
    /// All that was taken; `bytes` is what was handed over.
    taken: Mark,
    last_rtp: i64,
    /// Length of the last frame in RTP units, as known or as the frame before was long.
    last_span: i64,
    first_unflushed: Option<BootTime>,
    /// The muxer has begun with a frame and not returned.
    in_mux: bool,
}

/// Nothing more is written to it; its lane is not yet done.
pub(crate) struct ClosingFile {
    body: Body,
    /// Its end was not written.
    abandoned: bool,
}

/// A file that is over.
pub(crate) struct Over {
    pub(crate) segment: Segment,
    pub(crate) closed: ClosedFile,
    pub(crate) failure: Option<Failure>,
}

/// What is on the disk.
pub(crate) struct Figures {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) media_seconds: f64,
}

impl Body {
    /// Lets the lane begin once the session has a folder, and its journal the segment's opening.
    fn admit(&mut self, session: &SessionHandle, now: BootTime) {
        let Some(opening) = &mut self.opening else { return };
        if let Some(why) = session.has_no_folder() {
            self.lane.discard(&why);
            self.opening = None;
        } else if session.folder().is_some() {
            let since = *opening.since.get_or_insert(now);
            if session.has_written(opening.told) || now.saturating_since(since) >= JOURNAL_WAIT {
                self.lane.release();
                self.opening = None;
            }
        }
    }

    /// Takes note of what the lane has written.
    fn settle(&mut self) {
        let written = self.lane.state().written();
        while self.marks.front().is_some_and(|mark| mark.bytes <= written) {
            self.on_disk = self.marks.pop_front().unwrap_or_default();
        }
    }

    fn figures(&mut self) -> Figures {
        self.settle();
        Figures {
            frames: self.on_disk.frames,
            bytes: self.lane.state().written(),
            media_seconds: self.seconds(self.on_disk.media_units).as_f64(),
        }
    }

    fn seconds(&self, units: i64) -> Seconds {
        Seconds::new(units as f64 / self.rate as f64)
    }

    /// The segment's figures are those of `mark`.
    fn describe(&mut self, mark: &Mark, bytes: u64) {
        self.span_s = self.seconds(mark.span).as_f64();
        self.segment.end_s = self.segment.session_time(Seconds::new(self.span_s));
        self.segment.media_seconds = self.seconds(mark.media_units);
        self.segment.dtx_s = self.seconds(mark.dtx_units as i64);
        self.segment.frames = mark.frames;
        self.segment.bytes = bytes;
    }

    /// A newer estimate moves all that lies on the session's clock.
    fn place(&mut self, fit: Fit) {
        self.segment.place(fit.map, fit.clock);
    }
}

impl OpenFile {
    /// Names the file, tells the session of it and orders it from a lane. It begins with `frame`, which is yet to be
    /// [written](Self::write).
    pub(crate) fn open(
        world: &PumpWorld,
        order: &SegmentOrder,
        because: OpenedBecause,
        frame: &EncodedFrame,
    ) -> Self {
        let info = &order.ring.info;
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
        let name = order.session.name_segment(&order.names.participant, order.names.source, info.codec);
        order.session.tell(Record::SegmentOpened(SegmentOpened {
            track: order.names.track.clone(),
            file: name.clone(),
            codec: info.codec.into(),
            start_s,
            opened_because: because.into(),
            clock_uncertain_s: order.session.clock().uncertain(),
            video: video.clone(),
            audio,
        }));
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
        let lane = world.lanes.create(order.session.place().clone(), name.clone());
        let segment = Segment {
            file: name,
            codec: info.codec.into(),
            start_s,
            end_s: start_s,
            media_seconds: Seconds::ZERO,
            frames: 0,
            bytes: 0,
            sha256: None,
            is_final: false,
            opened_because: because.into(),
            clock_map: estimate.map,
            clock: estimate.clock,
            ledger: Ledger::default(),
            gaps: Vec::new(),
            dtx_s: Seconds::ZERO,
            clock_uncertain_s: order.session.clock().uncertain(),
            video,
            audio,
        };
        Self {
            body: Body {
                lane,
                opening: Some(Opening {
                    told: order.session.told(),
                    since: order.session.folder().map(|_| world.clock.now()),
                }),
                segment,
                ssrc: info.ssrc,
                rate: i64::from(info.clock_rate.max(1)),
                first_rtp: frame.rtp_time,
                span_s: 0.0,
                marks: VecDeque::new(),
                on_disk: Mark::default(),
            },
            mux,
            out,
            taken: Mark::default(),
            last_rtp: frame.rtp_time,
            last_span: 0,
            first_unflushed: None,
            in_mux: false,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.body.segment.file
    }

    /// Why its lane writes no more.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.body.lane.state().failure()
    }

    pub(crate) fn figures(&mut self) -> Figures {
        self.body.figures()
    }

    /// `cause`: what a pause before this frame is put down to, if known.
    pub(crate) fn write(&mut self, frame: &EncodedFrame, cause: Option<GapCause>) -> Result<(), MuxError> {
        let rate = self.body.rate;
        let since_first = frame.rtp_time - self.body.first_rtp;
        let ms = ((since_first * 1000 + rate / 2) / rate).max(0) as u64;
        self.in_mux = true;
        let written = self.mux.write_frame(ms, frame.key, &frame.data, &mut self.out);
        self.in_mux = false;
        written?;
        self.first_unflushed.get_or_insert(frame.last_arrival);
        self.note_time(frame, cause);
        self.taken.frames += 1;
        self.taken.packets += u64::from(frame.packets);
        self.taken.span = since_first + self.last_span;
        Ok(())
    }

    /// Hands finished clusters to the lane, all there is if it has waited long enough.
    pub(crate) fn flush(&mut self, session: &SessionHandle, now: BootTime) {
        let due = self.first_unflushed.is_some_and(|first| now.saturating_since(first) >= FLUSH_EVERY);
        if due || self.out.len() > FLUSH_BYTES {
            self.hand_over();
        }
        self.body.admit(session, now);
    }

    /// Always with the open cluster, so that the lane's bytes and the marks tell of the same frames.
    fn hand_over(&mut self) {
        self.mux.flush(&mut self.out);
        self.first_unflushed = None;
        if self.out.is_empty() {
            return;
        }
        self.taken.bytes += self.out.len() as u64;
        self.body.lane.append(std::mem::take(&mut self.out));
        self.body.marks.push_back(self.taken.clone());
        self.body.settle();
    }

    /// Takes a new estimate of the clock and says how far the file has come on the disk.
    pub(crate) fn progress(&mut self, order: &SegmentOrder, ledger: Ledger) -> SegmentProgress {
        let body = &mut self.body;
        let span_s = body.seconds(self.taken.span).as_f64();
        body.place(clock_fit::fit(order, body.first_rtp, span_s));
        let bytes = body.figures().bytes;
        let mark = body.on_disk.clone();
        body.describe(&mark, bytes);
        let segment = &body.segment;
        SegmentProgress {
            file: segment.file.clone(),
            end_s: segment.end_s,
            media_seconds: segment.media_seconds,
            frames: segment.frames,
            bytes: segment.bytes,
            dtx_s: segment.dtx_s,
            ledger,
            clock_map: Some(segment.clock_map.clone()),
            clock: Some(segment.clock.clone()),
            resolutions: segment.video.as_ref().map(|video| video.resolutions.clone()),
            rotations: segment.video.as_ref().map(|video| video.rotations.clone()),
            audio: segment.audio,
        }
    }

    /// The sender opted out: takes back what has not been handed to the lane, and says how many packets that were. A file
    /// of which the lane has nothing yet keeps what it has, at most [`FLUSH_EVERY`] from before, so that it is a file.
    pub(crate) fn take_back(&mut self) -> u64 {
        let kept = self.body.marks.back().unwrap_or(&self.body.on_disk).clone();
        if kept.frames == 0 {
            return 0;
        }
        let packets = self.taken.packets - kept.packets;
        self.out.clear();
        self.first_unflushed = None;
        self.mux.roll_back(self.taken.bytes, kept.frames);
        self.taken = Mark { bytes: self.taken.bytes, ..kept };
        let segment = &mut self.body.segment;
        let end_s = segment.session_time(Seconds::new(self.taken.span as f64 / self.body.rate as f64));
        segment.gaps.retain(|gap| gap.to_s <= end_s);
        if let Some(video) = &mut segment.video {
            video.resolutions.retain(|size| size.at_s <= end_s);
            video.rotations.retain(|rotation| rotation.at_s <= end_s);
        }
        packets
    }

    /// Cues, duration, the final clock.
    pub(crate) fn close(mut self, order: &SegmentOrder, ledger: Ledger) -> ClosingFile {
        self.hand_over();
        let Self { mut body, mux, mut out, mut taken, .. } = self;
        let duration_s = body.seconds(taken.span).as_f64();
        body.place(clock_fit::fit(order, body.first_rtp, duration_s));
        let finished = mux.finish(&mut out, FinalFacts { duration_s });
        body.describe(&taken, finished.length);
        body.segment.ledger = ledger;
        taken.bytes = finished.length;
        body.lane.append(out);
        body.marks.push_back(taken);
        body.lane.finish(finished.patches.into_iter().map(|patch| (patch.offset, patch.bytes)).collect());
        ClosingFile { body, abandoned: false }
    }

    /// The file cannot be ended in order. What was taken is written if the lane still can.
    pub(crate) fn abandon(mut self, ledger: Ledger) -> ClosingFile {
        if !self.in_mux {
            self.hand_over();
        }
        self.body.segment.ledger = ledger;
        self.body.lane.abandon();
        ClosingFile { body: self.body, abandoned: true }
    }

    /// Times, pauses and pictures of a frame that was written.
    fn note_time(&mut self, frame: &EncodedFrame, cause: Option<GapCause>) {
        let body = &mut self.body;
        let rate = body.rate as f64;
        let here = body.segment.session_time(body.seconds(frame.rtp_time - body.first_rtp));
        let first = self.taken.frames == 0;
        let step = frame.rtp_time - self.last_rtp;
        let pause = if first { 0 } else { step - self.last_span };
        if pause as f64 / rate >= GAP_S {
            let from_s = body.segment.session_time(body.seconds(self.taken.span));
            let because =
                cause.unwrap_or(if frame.discontinuity { GapCause::Loss } else { GapCause::Silence });
            if body.segment.gaps.len() < MOST_LISTED {
                body.segment.gaps.push(Gap { from_s, to_s: here, cause: because.into() });
            }
        } else if let Some(audio) = frame.audio
            && !first
        {
            self.taken.dtx_units += audio.silence_samples;
        }
        let span = match frame.audio {
            Some(audio) => i64::from(audio.duration_samples),
            // A picture lasts until the next; of the last one only its predecessor's length is known.
            None if first => 0,
            None if (pause as f64) < GAP_S * rate => {
                self.taken.media_units += step - self.last_span;
                step
            }
            None => self.last_span,
        };
        self.taken.media_units += span;
        self.last_span = span;
        self.last_rtp = frame.rtp_time;
        let Some(video) = &mut body.segment.video else { return };
        if let Some(facts) = &frame.video {
            let known = video.resolutions.last().map(|size| (size.width, size.height));
            if known != Some((facts.width, facts.height)) && video.resolutions.len() < MOST_LISTED {
                video.resolutions.push(Resolution { at_s: here, width: facts.width, height: facts.height });
            }
        }
        if let Some(degrees) = frame.rotation
            && video.rotations.last().map(|rotation| rotation.degrees) != Some(degrees)
            && video.rotations.len() < MOST_LISTED
        {
            video.rotations.push(Rotation { at_s: here, degrees });
        }
    }
}

impl ClosingFile {
    pub(crate) fn admit(&mut self, session: &SessionHandle, now: BootTime) {
        self.body.admit(session, now);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.body.lane.state().is_finished()
    }

    pub(crate) fn figures(&mut self) -> Figures {
        self.body.figures()
    }

    /// Its packets' fates, as far as the disk has not decided otherwise.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.body.segment.ledger
    }

    /// The file's final form, once it [is over](Self::is_over): what did not reach the disk was not written.
    pub(crate) fn into_over(mut self) -> Over {
        self.body.settle();
        let failure = self.body.lane.state().failure().cloned();
        if self.abandoned || failure.is_some() {
            let mark = self.body.on_disk.clone();
            self.body.describe(&mark, self.body.lane.state().written());
            let segment = &mut self.body.segment;
            let end_s = segment.end_s;
            segment.gaps.retain(|gap| gap.to_s <= end_s);
            not_written(&mut segment.ledger, mark.packets);
        }
        let mut segment = self.body.segment.clone();
        segment.is_final = true;
        let closed = ClosedFile {
            file: segment.file.clone(),
            ssrc: self.body.ssrc,
            first_rtp: self.body.first_rtp,
            span_s: self.body.span_s,
        };
        Over { segment, closed, failure }
    }
}

/// Of the packets counted as written only `on_disk` are.
pub(crate) fn not_written(ledger: &mut Ledger, on_disk: u64) {
    let lost = ledger.written.saturating_sub(on_disk);
    ledger.written -= lost;
    ledger.dropped_by_us += lost;
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
