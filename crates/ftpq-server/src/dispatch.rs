//! One command: reads the request, admits it, checks the right, runs the handler, always answers.
//!
//! This is the only place where a status is written to a client, and the only one that decides
//! whether a handler runs. A handler cannot forget a check, leave a client waiting, or take the
//! server down.

use std::{mem::replace, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use ciborium::Value;
use ftpq_handler::{Context, Exchange, Failure, User};
use ftpq_proto::{
    RemotePath, Status, TicketSecret, codec,
    commands::con,
    message::{Reply, Request, Response},
};
use ftpq_transport::{Fingerprint, RecvError, RecvHalf, SendHalf};
use futures_util::FutureExt;
use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking, time::timeout};

use crate::{
    access::{Denied, Grant},
    limits::{REQUEST, SETTLE},
    observer::Event,
    penalties::Offence,
    session::{Session, Settled},
};

/// Serves one stream from its request to its reply, in its `turn` among those of its connection.
pub(crate) async fn run(session: Arc<Session>, turn: OwnedSemaphorePermit, send: SendHalf, mut recv: RecvHalf) {
    let request = recv.frame::<Request>(REQUEST).await;
    let began = Instant::now();
    let mut exchange = Exchange::new(send, recv);
    let (user, verb, path, result) = match request {
        Ok(request) => {
            let verb = request.verb.clone();
            let (user, path, result) = admit_and_handle(&session, request, &mut exchange).await;
            (user, verb, path, result)
        }
        Err(error) => {
            if matches!(error, RecvError::Malformed(_)) && !session.is_settled() {
                session.blame(Offence::Malformed);
            }
            (None, String::new(), None, Err(error.into()))
        }
    };
    // Within a body there is no room for a reply.
    let result = if exchange.is_cut() {
        result.and_then(|_| Err(Failure::internal("a handler left a body behind")))
    } else {
        result
    };
    // A reply that fits no frame is a mistake of its handler's, and known before anything is reported.
    let result = result.and_then(|value| codec::encode(&Response::Reply(Reply::Ok(value))).map_err(Failure::internal));
    // A key that is not authorised was reported as such, and a stream without a request is no command.
    if let Some(user) = user {
        session.server.tell(Event::Command {
            user: &user.name,
            key: user.key,
            remote: session.connection.remote_address(),
            verb: &verb,
            path: path.as_ref(),
            bytes: exchange.bytes(),
            elapsed: began.elapsed(),
            outcome: result.as_ref().map(drop),
        });
    }
    answer(exchange, result, turn).await;
}

/// Everything between the request and the reply.
async fn admit_and_handle(
    session: &Session,
    mut request: Request,
    exchange: &mut Exchange,
) -> (Option<Arc<User>>, Option<RemotePath>, Result<Value, Failure>) {
    let is_con = request.verb == con::VERB;
    // What rides in CON's flight waits for it: CON may bring what lets the key in.
    let settled = if is_con { Ok(()) } else { wait_for_con(session, &mut request.args).await };
    let grant = match authorise(session, is_con.then_some(&request.args)).await {
        Ok(grant) => grant,
        Err((failure, offence)) => {
            if session.settle(Settled::Refused(failure.to_wire())) {
                offence.into_iter().for_each(|offence| session.blame(offence));
                let (remote, key) = (session.connection.remote_address(), session.connection.peer());
                session.server.tell(Event::NotAuthorised { remote, key, why: &failure });
            }
            return (None, None, Err(failure));
        }
    };
    let user = Arc::new(grant.user.clone());
    let (path, result) = match settled.and_then(|()| admit(session, &grant, is_con)) {
        Ok(()) => tokio::select! {
            biased;
            handled = handle(session, &grant, user.clone(), request, exchange) => handled,
            () = session.revoked.cancelled() => (None, Err(Failure::new(Status::NotAuthorised, "the key was removed"))),
        },
        Err(failure) => (None, Err(failure)),
    };
    if is_con {
        session
            .settle(result.as_ref().map_or_else(|failure| Settled::Refused(failure.to_wire()), |_| Settled::Welcome));
    }
    (Some(user), path, result)
}

/// The client's grant, asked for at each command: a key that was removed is out at once. CON may bring a
/// ticket in its arguments.
async fn authorise(session: &Session, con: Option<&Value>) -> Result<Arc<Grant>, (Failure, Option<Offence>)> {
    let mut grant = session.grant();
    session.server.report_rejected_lines();
    let args = con.filter(|_| grant.is_err()).and_then(|args| codec::from_value::<con::Args>(args).ok());
    if let Some(ticket) = args.and_then(|args| args.ticket) {
        grant = redeem(session, ticket).await.map_err(|failure| (failure, None))?;
    }
    grant.map_err(|denied| {
        let offence = if denied == Denied::BadTicket { Offence::BadTicket } else { Offence::Refused };
        (refused(session.connection.peer(), denied), Some(offence))
    })
}

/// Spends a ticket, which waits for the disk.
async fn redeem(session: &Session, ticket: TicketSecret) -> Result<Result<Arc<Grant>, Denied>, Failure> {
    let (server, key, address) = (session.server.clone(), session.connection.peer(), session.origin);
    let spent = spawn_blocking(move || server.access.redeem(&ticket, key, address)).await;
    let spent = spent.map_err(Failure::internal)?.map_err(Failure::internal)?;
    if let Ok(grant) = &spent {
        let (user, remote) = (&grant.user, session.connection.remote_address());
        session.server.tell(Event::TicketSpent { user: &user.name, key, remote });
    }
    Ok(spent)
}

fn refused(key: Fingerprint, denied: Denied) -> Failure {
    match denied {
        Denied::Unknown => Failure::new(
            Status::NotAuthorised,
            format!(
                "this server does not know your key: ask its owner for a ticket (ftpq invite), or to add the line \
                 \"{key} name=YOUR-NAME rights=list,read,write\" to its authorized_clients file"
            ),
        ),
        Denied::Restricted(why) => Failure::new(Status::NotAuthorised, format!("{why}: ask the server's owner")),
        Denied::BadTicket => Failure::new(
            Status::BadTicket,
            "this ticket is spent, too old, or not from this server: ask its owner for another (ftpq invite)",
        ),
    }
}

/// Waits until CON was answered; how, where that was no welcome. What waits are the bytes of a request's `args`: what
/// was made of them may take a hundred times as much, and nobody is known yet.
async fn wait_for_con(session: &Session, args: &mut Value) -> Result<(), Failure> {
    let waiting = match session.is_settled() {
        true => None,
        // Arrays of unknown length may need some bytes more than they came in.
        false => Some(codec::encode(&replace(args, Value::Null)).map_err(|error| bad_arguments(&error))?),
    };
    match timeout(SETTLE, session.wait_settled()).await {
        Ok(Settled::Welcome) => {}
        Ok(Settled::Refused(failed)) => return Err(Failure::new(failed.status, failed.message)),
        Err(_) => return Err(Failure::new(Status::TimedOut, "CON did not come in time")),
    }
    if let Some(frame) = waiting {
        let body = frame.get(codec::PREFIX_LEN..).unwrap_or_default();
        *args = codec::decode(body).map_err(|error| bad_arguments(&error))?;
    }
    Ok(())
}

fn bad_arguments(error: &dyn std::error::Error) -> Failure {
    Failure::new(Status::BadArguments, format!("bad arguments: {error}"))
}

/// Whether a command may begin now: not while the server stops.
fn admit(session: &Session, grant: &Arc<Grant>, is_con: bool) -> Result<(), Failure> {
    if session.server.draining.is_cancelled() {
        return Err(Failure::new(Status::Unavailable, "the server is stopping: try again in a moment"));
    }
    if is_con {
        return session.enter(grant);
    }
    session.grow();
    Ok(())
}

/// Checks the right and runs the handler, whatever it does.
async fn handle(
    session: &Session,
    grant: &Grant,
    user: Arc<User>,
    request: Request,
    exchange: &mut Exchange,
) -> (Option<RemotePath>, Result<Value, Failure>) {
    let Some(registered) = session.server.registry.find(&request.verb) else {
        let message = format!("this server has no verb {}", ftpq_proto::Escaped::new(&request.verb));
        return (None, Err(Failure::new(Status::UnknownVerb, message)));
    };
    if let Some(right) = registered.spec().right
        && !user.rights.contains(right)
    {
        return (None, Err(Failure::forbidden(&user, right)));
    }
    let storage = match session.view(grant, &user).await {
        Ok(storage) => storage,
        Err(error) => {
            let message = "the folder that is yours on this server cannot be opened: tell its owner";
            return (None, Err(Failure::new(error.status(), message).because(error)));
        }
    };
    let Some(member) = session.member() else { return (None, Err(Failure::internal("a command before CON"))) };
    exchange.set_room(member.client.room.clone());
    exchange.set_priority(registered.spec().priority);
    session.server.paces.of(&user).into_iter().for_each(|pace| exchange.set_pace(pace));
    let remote = session.connection.remote_address();
    let cx =
        Context::new(user, remote, request.cwd, storage, session.server.service.clone(), member.client.costly.clone());
    let ran = AssertUnwindSafe(registered.run(&cx, request.args, exchange)).catch_unwind().await;
    let result = ran.unwrap_or_else(|panic| Err(Failure::internal(describe(&*panic))));
    (cx.subject(), result)
}

/// Tells the client how it ended.
async fn answer(exchange: Exchange, result: Result<Vec<u8>, Failure>, turn: OwnedSemaphorePermit) {
    let cut = exchange.is_cut();
    let (mut send, mut recv) = exchange.into_parts();
    let sent = match result {
        Ok(reply) => send.block(reply.into()).await,
        Err(failure) => {
            recv.stop(failure.status());
            if cut {
                return send.reset(failure.status());
            }
            send.frame(&Response::Reply(Reply::Error(failure.to_wire()))).await
        }
    };
    drop(turn);
    // If this failed, the client is gone: there is nobody left to tell.
    if sent.is_ok() {
        send.finish();
        recv.end().await;
        send.delivered().await;
    }
}

fn describe(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic in a handler: {}", text.unwrap_or("no message"))
}
