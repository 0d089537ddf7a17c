//! Repair of a file of 10 GB reads heads of clusters only.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod mux_support;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use mux_support::{header, mux_unfinished};
use recorder_core::media::Codec;
use recorder_core::mux::{ReadAt, scan};

struct Disk {
    file: File,
    read: u64,
}

impl ReadAt for Disk {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buf, offset)?;
        self.read += count as u64;
        Ok(count)
    }
}

/// A cluster's head, timestamp and the head of the block that fills it.
fn cluster_head(timestamp_ms: u64, key: bool, body: u64) -> Vec<u8> {
    let mut head = vec![0x1F, 0x43, 0xB6, 0x75];
    head.extend((0x1000_0000 | body as u32).to_be_bytes());
    head.extend([0xE7, 0x88]);
    head.extend(timestamp_ms.to_be_bytes());
    head.push(0xA3);
    head.extend((0x1000_0000 | (body - 10 - 5) as u32).to_be_bytes());
    head.extend([0x81, 0, 0, if key { 0x80 } else { 0 }]);
    head
}

#[test]
fn ten_gigabytes_that_were_never_finished_are_repaired_within_ten_seconds() {
    const CLUSTERS: u64 = 64_000;
    const BODY: u64 = 160_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.webm");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let head = mux_unfinished(&header(Codec::Vp8), &[]);
    file.write_all_at(&head, 0).unwrap();
    let mut at = head.len() as u64;
    for cluster in 0..CLUSTERS {
        file.write_all_at(&cluster_head(cluster * 480, cluster % 4 == 0, BODY), at).unwrap();
        at += 8 + BODY;
    }
    // The last cluster is torn in its only block.
    let length = at - BODY / 2;
    file.set_len(length).unwrap();
    assert!(length > 10_000_000_000);

    let mut disk = Disk { file, read: 0 };
    let began = Instant::now();
    let plan = scan(&mut disk, length).unwrap();
    let took = began.elapsed();
    assert_eq!(plan.clusters, CLUSTERS - 1);
    assert_eq!(plan.last_timestamp_ms, Some((CLUSTERS - 2) * 480));
    assert_eq!(plan.truncate_to, length - 8 - BODY / 2);
    assert!(plan.append.len() < 100_000, "{} bytes of cues", plan.append.len());
    assert!(disk.read < CLUSTERS * 64 + (4 << 20), "{} bytes read", disk.read);
    assert!(took < Duration::from_secs(10), "{took:?}");

    disk.file.set_len(plan.truncate_to).unwrap();
    disk.file.write_all_at(&plan.append, plan.truncate_to).unwrap();
    for patch in &plan.patches {
        disk.file.write_all_at(&patch.bytes, patch.offset).unwrap();
    }
    assert!(scan(&mut disk, plan.length()).unwrap().already_final);
}
