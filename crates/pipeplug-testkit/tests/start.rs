//! State of the connection inside the start call-back of a plugin.

use std::io::{Read as _, Write as _};
use std::os::fd::IntoRawFd as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pipeplug_guest::{Guest, Main, OnEnd, Request};
use pipeplug_net::{HandlerError, Reply};
use pipeplug_testkit::{Pair, Watchdog, pipe_of};

const LONG: Duration = Duration::from_secs(30);

/// Answers what it calls the host with.
fn echo(request: &mut Request) -> Result<Reply, HandlerError> {
    Ok(request.take_buffer().into())
}

#[test]
fn the_start_call_back_knows_the_host() {
    for (round, has_metadata) in [true, false].into_iter().cycle().take(100).enumerate() {
        let (tell, told) = mpsc::channel();
        let tell_request = tell.clone();
        let start = move |main: &Main| {
            tell.send(format!("{:?}", main.host().get("pipeplug.protocol")))?;
            // What both sides negotiated is in force too.
            tell.send(main.call("echo", "from start")?)?;
            Ok(())
        };
        let handler = move |_: &Main, request: &mut Request| {
            tell_request.send(request.command().to_owned())?;
            match request.command() {
                "GetMetadata" => Ok(r#"{"Cmd":"late"}"#.into()),
                _ => Ok("done".into()),
            }
        };
        let mut guest = Guest::new().start(start).handler(handler);
        if has_metadata {
            guest = guest.metadata("Cmd", "early");
        }
        let pair = Pair::setup().register(echo, guest).unwrap();
        assert_eq!(pair.metadata["Cmd"], if has_metadata { "early" } else { "late" });
        assert_eq!(pair.host.call("x", "").unwrap(), "done");
        let mut order = vec!["Some(\"1\")", "from start"];
        order.extend((!has_metadata).then_some("GetMetadata"));
        order.push("x");
        let came: Vec<_> = order.iter().map(|_| told.recv_timeout(LONG).unwrap()).collect();
        assert_eq!(came, order, "{round}");
    }
}

#[test]
fn a_host_that_never_asks_for_metadata_is_not_waited_for() {
    let (guest_in, mut host_out) = pipe_of(None).unwrap();
    let (mut host_in, guest_out) = pipe_of(None).unwrap();
    let args = [guest_in.into_raw_fd(), guest_out.into_raw_fd()].map(|number| number.to_string());
    host_out.write_all(b"1\x002\x001\0x\x000\0").unwrap();
    let registered = thread::spawn(move || {
        let handler = |main: &Main, _: &mut Request| Ok(main.host().len().to_string().into());
        let start = |_: &Main| Ok(());
        Guest::new()
            .start(start)
            .handler(handler)
            .args(args)
            .on_end(OnEnd::Stay)
            .try_register()
            .unwrap()
    });
    let mut answer = [0; 11];
    host_in.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"1\x003\x001\0x\x001\x000");
    drop(host_out);
    drop(registered.join().unwrap());
}

#[test]
fn a_host_that_is_gone_ends_the_wait_for_it() {
    let (guest_in, host_out) = pipe_of(None).unwrap();
    let (_host_in, guest_out) = pipe_of(None).unwrap();
    let args = [guest_in.into_raw_fd(), guest_out.into_raw_fd()].map(|number| number.to_string());
    drop(host_out);
    let start = |main: &Main| {
        assert!(main.host().is_empty());
        Err("no host".into())
    };
    let result = Guest::new().start(start).args(args).on_end(OnEnd::Stay).try_register();
    assert!(result.is_err());
}

#[test]
fn the_start_call_back_may_send_more_than_a_window_and_use_what_the_host_names() {
    const SENT: usize = 6;
    let _watchdog = Watchdog::new(LONG);
    for has_metadata in [true, false] {
        let (tell, told) = mpsc::channel();
        let host = move |request: &mut Request| match request.command() {
            "large" => Ok(tell.send(request.buffer().len()).map(|()| Reply::empty())?),
            "deadline" => Ok(request.deadline().is_some().to_string().into()),
            _ => {
                let mut reply = request.reply_parts()?;
                for part in request.parts() {
                    reply.send(&*part?)?;
                }
                Ok("all".into())
            }
        };
        let start = |main: &Main| {
            // The window is 4 MiB.
            for _ in 0..SENT {
                main.notify("large", vec![0; 1 << 20])?;
            }
            let deadline = main.request("deadline", "").timeout(LONG).wait_text()?;
            let (mut sender, mut parts) = main.request("stream", "").stream()?.split();
            sender.send_all(["one", "two"])?;
            sender.finish()?;
            let came = (&mut parts).map(|part| Ok(part?.text()?.to_owned()));
            let came = came.collect::<Result<Vec<_>, HandlerError>>()?;
            match (&*deadline, came.join(" ")) {
                ("true", came) if came == "one two" => Ok(()),
                wrong => Err(format!("{wrong:?}").into()),
            }
        };
        let mut guest = Guest::new().start(start);
        if has_metadata {
            guest = guest.metadata("Cmd", "early");
        }
        let pair = Pair::setup().register(host, guest).unwrap();
        let came: Vec<_> = (0..SENT).map(|_| told.recv_timeout(LONG).unwrap()).collect();
        assert_eq!(came, [1 << 20; SENT]);
        // Flow control is in force from then on, for what came before as well.
        for _ in 0..SENT {
            pair.guest.request("large", vec![0; 1 << 20]).timeout(LONG).wait().unwrap();
        }
    }
}
