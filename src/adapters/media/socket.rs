//! The UDP socket: batches in, with the kernel's arrival time and the local address of each datagram.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use recorder_core::time::BootTime;

use crate::adapters::clock::boot_time;

/// Datagrams taken from the kernel at once.
pub const BATCH: usize = 32;
/// Bytes kept of a datagram; longer ones cannot be media over any usual path and are dropped.
const DATAGRAM: usize = 2048;
/// Room for a timestamp, an IPv6 packet information and an overflow count, headers and alignment included.
const CONTROL: usize = 128;
/// Receive buffer asked of the kernel: the default holds 15 ms of traffic, this one outlasts stalls of 200 ms.
pub const RECEIVE_BUFFER: usize = 4 << 20;
/// An arrival further back than this is a step of the system's clock, not a wait in the buffer.
const MAX_AGE: Duration = Duration::from_secs(10);

/// One of the media loop's UDP sockets.
#[derive(Debug)]
pub struct Socket {
    inner: UdpSocket,
    local: SocketAddr,
    buffer: usize,
}

/// A datagram as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    pub bytes: &'a [u8],
    pub source: SocketAddr,
    /// Local address it was sent to, with the socket's port.
    pub destination: SocketAddr,
    /// When the kernel received it.
    pub arrival: BootTime,
    /// The same instant on the clock of [`Instant`].
    pub instant: Instant,
}

impl Socket {
    /// Binds `address` (port 0: any free one) and sets what the media loop needs.
    ///
    /// # Errors
    /// What the kernel says, for instance [`io::ErrorKind::AddrInUse`].
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let inner = bind_one_family(address)?;
        inner.set_nonblocking(true)?;
        setsockopt(&inner, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&inner, sockopt::RxqOvfl, &1)?;
        if address.is_ipv4() {
            setsockopt(&inner, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&inner, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        if setsockopt(&inner, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&inner, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        // The kernel doubles what it is asked for, to cover its own book-keeping (socket(7)).
        let buffer = nix::sys::socket::getsockopt(&inner, sockopt::RcvBuf)? / 2;
        let local = inner.local_addr()?;
        Ok(Self { inner, local, buffer })
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Bytes of receive buffer the kernel granted.
    pub fn receive_buffer(&self) -> usize {
        self.buffer
    }

    /// Sends from `source` (one of this machine's addresses) to `destination`.
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::WouldBlock`] when its queue is full.
    pub fn send(&self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let slices = [io::IoSlice::new(bytes)];
        let to = SockaddrStorage::from(destination);
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.inner.as_raw_fd();
        let sent = match source.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                sendmsg(fd, &slices, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
            }
            IpAddr::V6(ip) if !ip.is_unspecified() => {
                let info =
                    libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: libc::in6_addr { s6_addr: ip.octets() } };
                sendmsg(fd, &slices, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
            }
            _ => sendmsg(fd, &slices, &[], flags, Some(&to)),
        };
        sent.map(|_| ()).map_err(io::Error::from)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// An IPv6 socket must leave IPv4 alone, or the two wildcard binds of one port collide.
fn bind_one_family(address: SocketAddr) -> io::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, socket};
    if address.is_ipv4() {
        return UdpSocket::bind(address);
    }
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(UdpSocket::from(fd))
}

/// Buffers for one `recvmmsg`, made once.
pub struct Batch {
    data: Box<[[u8; DATAGRAM]]>,
    control: Box<[Control]>,
    names: Box<[libc::sockaddr_storage]>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    received: usize,
    now: Now,
    local: SocketAddr,
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: the raw pointers in `headers` and `vectors` are set anew before each system call and point into boxes of the
// same value, which move with it.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("received", &self.received).finish_non_exhaustive()
    }
}

/// The three clocks at one instant, to translate the kernel's UTC stamps.
#[derive(Clone, Copy, Debug)]
struct Now {
    utc: Duration,
    boot: BootTime,
    instant: Instant,
}

impl Now {
    fn take() -> Self {
        Self {
            utc: clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from),
            boot: boot_time(),
            instant: Instant::now(),
        }
    }
}

impl Batch {
    pub fn new() -> Self {
        // SAFETY: all of these are plain old data of C for which zero bytes are a valid value.
        let (name, header) =
            unsafe { (mem::zeroed::<libc::sockaddr_storage>(), mem::zeroed::<libc::mmsghdr>()) };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            data: vec![[0; DATAGRAM]; BATCH].into_boxed_slice(),
            control: vec![Control([0; CONTROL]); BATCH].into_boxed_slice(),
            names: vec![name; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
            vectors: vec![vector; BATCH].into_boxed_slice(),
            received: 0,
            now: Now::take(),
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        }
    }

    /// Takes up to [`BATCH`] waiting datagrams; returns how many, 0 when none wait.
    pub fn receive(&mut self, socket: &Socket) -> usize {
        for index in 0..BATCH {
            self.vectors[index] =
                libc::iovec { iov_base: self.data[index].as_mut_ptr().cast(), iov_len: DATAGRAM };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = self.control[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
            header.msg_flags = 0;
        }
        // SAFETY: every pointer was set above to a live buffer of the stated length; the kernel writes only there.
        let received = unsafe {
            libc::recvmmsg(
                socket.inner.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        self.received = Errno::result(received).map_or(0, |count| usize::try_from(count).unwrap_or(0));
        self.local = socket.local;
        self.now = Now::take();
        self.received
    }

    /// The datagrams of the last [`Batch::receive`] and, if the kernel tells it, how many it has dropped on this socket.
    pub fn iter(&self) -> impl Iterator<Item = (Datagram<'_>, Option<u32>)> {
        (0..self.received).filter_map(|index| {
            let header = &self.headers[index];
            let length = header.msg_len as usize;
            let source = socket_addr(&self.names[index])?;
            let mut destination = self.local;
            let mut age = Duration::ZERO;
            let mut dropped = None;
            for message in control_messages(&header.msg_hdr) {
                match message {
                    Message::Stamp(utc) => age = self.now.utc.saturating_sub(utc),
                    Message::Local(ip) => destination.set_ip(ip),
                    Message::Dropped(count) => dropped = Some(count),
                }
            }
            if length > DATAGRAM || header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                return None;
            }
            let age = if age > MAX_AGE { Duration::ZERO } else { age };
            let datagram = Datagram {
                bytes: &self.data[index][..length],
                source,
                destination,
                arrival: self.now.boot - age,
                instant: self.now.instant.checked_sub(age).unwrap_or(self.now.instant),
            };
            Some((datagram, dropped))
        })
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

fn socket_addr(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a `sockaddr_in`, and it is large and aligned enough.
            let v4 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the storage holds a `sockaddr_in6`, and it is large and aligned enough.
            let v6 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

enum Message {
    Stamp(Duration),
    Local(IpAddr),
    Dropped(u32),
}

fn control_messages(header: &libc::msghdr) -> impl Iterator<Item = Message> {
    // SAFETY: `header` was filled by the kernel and its control buffer is alive; the CMSG functions stay within
    // `msg_controllen`, and every payload is read unaligned at the type its level and kind prescribe.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    std::iter::from_fn(move || {
        loop {
            if next.is_null() {
                return None;
            }
            // SAFETY: as above.
            let (message, data) = unsafe { (std::ptr::read_unaligned(next), libc::CMSG_DATA(next)) };
            // SAFETY: as above.
            next = unsafe { libc::CMSG_NXTHDR(header, next) };
            // SAFETY: as above.
            let found = unsafe {
                match (message.cmsg_level, message.cmsg_type) {
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        let stamp = data.cast::<libc::timespec>().read_unaligned();
                        let seconds = u64::try_from(stamp.tv_sec).unwrap_or(0);
                        let nanos = u32::try_from(stamp.tv_nsec).unwrap_or(0).min(999_999_999);
                        Some(Message::Stamp(Duration::new(seconds, nanos)))
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                        Some(Message::Local(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()))))
                    }
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                        Some(Message::Local(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))))
                    }
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                        Some(Message::Dropped(data.cast::<u32>().read_unaligned()))
                    }
                    _ => None,
                }
            };
            if found.is_some() {
                return found;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn receive_one(socket: &Socket, batch: &mut Batch) {
        let mut fds = [nix::poll::PollFd::new(socket.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::from(2000u16)).expect("poll");
        assert_eq!(batch.receive(socket), 1, "one datagram waits");
    }

    #[test]
    fn a_datagram_on_a_wildcard_socket_tells_its_local_address_and_arrival() {
        let socket = Socket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).expect("bind");
        let peer = UdpSocket::bind(loopback()).expect("bind");
        let before = boot_time();
        peer.send_to(b"hello", SocketAddr::from(([127, 0, 0, 1], socket.local().port()))).expect("send");
        let mut batch = Batch::new();
        receive_one(&socket, &mut batch);
        let (datagram, _) = batch.iter().next().expect("datagram");
        assert_eq!(datagram.bytes, b"hello");
        assert_eq!(datagram.source, peer.local_addr().expect("address"));
        assert_eq!(datagram.destination, SocketAddr::from(([127, 0, 0, 1], socket.local().port())));
        assert!(datagram.arrival.seconds_since(before).abs() < 0.5);
    }

    #[test]
    fn an_arrival_is_the_kernels_and_not_the_readers() {
        let socket = Socket::bind(loopback()).expect("bind");
        let peer = UdpSocket::bind(loopback()).expect("bind");
        let mut batch = Batch::new();
        let mut late = Vec::new();
        // The kernel begins to stamp a moment after the first socket has asked for it.
        for _ in 0..20 {
            peer.send_to(b"early", socket.local()).expect("send");
            let sent = boot_time();
            while boot_time().saturating_since(sent) < Duration::from_millis(60) {
                std::hint::spin_loop();
            }
            receive_one(&socket, &mut batch);
            let (datagram, _) = batch.iter().next().expect("datagram");
            let lateness = datagram.arrival.seconds_since(sent);
            if lateness < 0.02 {
                return;
            }
            late.push(lateness);
        }
        panic!("arrivals are those of the reader: {late:?}");
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        let socket = Socket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).expect("bind");
        let peer = UdpSocket::bind(loopback()).expect("bind");
        let source = SocketAddr::from(([127, 0, 0, 9], socket.local().port()));
        socket.send(source, peer.local_addr().expect("address"), b"x").expect("send");
        let (_, from) = peer.recv_from(&mut [0; 8]).expect("receive");
        assert_eq!(from, source);
    }

    #[test]
    fn a_batch_is_reused_without_losing_its_control_messages() {
        let socket = Socket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).expect("bind");
        let peer = UdpSocket::bind(loopback()).expect("bind");
        let to = SocketAddr::from(([127, 0, 0, 3], socket.local().port()));
        let mut batch = Batch::new();
        for round in 0..3u8 {
            peer.send_to(&[round], to).expect("send");
            receive_one(&socket, &mut batch);
            let (datagram, _) = batch.iter().next().expect("datagram");
            assert_eq!((datagram.bytes, datagram.destination.ip()), (&[round][..], to.ip()));
        }
    }

    #[test]
    fn the_receive_buffer_that_was_granted_is_told() {
        let socket = Socket::bind(loopback()).expect("bind");
        assert!(socket.receive_buffer() >= 64 << 10, "{}", socket.receive_buffer());
    }
}
