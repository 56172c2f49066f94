//! The pace of each user whose rate is limited.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

pub use ftpq_handler::RATE_MIN;
use ftpq_handler::{Pace, User};
use ftpq_transport::Fingerprint;

/// The paces of a server's users. They outlive connections: coming back does not begin a new second.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    by_key: Mutex<HashMap<Fingerprint, Arc<Pace>>>,
}

impl Paces {
    /// The pace that all commands of `user` share; `None` if there is no limit.
    pub(crate) fn of(&self, user: &User) -> Option<Arc<Pace>> {
        let rate = user.limits.rate?;
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        match by_key.get(&user.key) {
            Some(pace) if pace.rate() == rate.max(RATE_MIN) => Some(pace.clone()),
            _ => {
                by_key.retain(|_, pace| Arc::strong_count(pace) > 1 || !pace.is_rested());
                let pace = Arc::new(Pace::new(rate));
                by_key.insert(user.key, pace.clone());
                Some(pace)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ftpq_handler::{Limits, PIECE, Rights, Way};
    use ftpq_transport::Identity;
    use tokio::time::{Duration, Instant, sleep};

    use super::*;

    fn user(rate: Option<u64>) -> User {
        let key = Identity::generate().unwrap().fingerprint();
        User { name: "alice".into(), key, rights: Rights::NONE, limits: Limits { rate, ..Limits::default() } }
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_one_pace_and_coming_back_begins_no_new_one() {
        let (alice, bob) = (user(Some(1 << 20)), user(Some(1 << 20)));
        let paces = Paces::default();
        assert!(paces.of(&user(None)).is_none());
        let began = Instant::now();
        for _ in 0..32 {
            paces.of(&alice).unwrap().wait(Way::Up, PIECE).await;
        }
        assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
        let pace = paces.of(&alice).unwrap();
        assert!(!Arc::ptr_eq(&pace, &paces.of(&bob).unwrap()));
        assert!(Arc::ptr_eq(&pace, &paces.of(&alice).unwrap()));
        assert_eq!(paces.by_key.lock().unwrap().len(), 2);

        // What is as good as new is not kept.
        drop(pace);
        sleep(Duration::from_secs(60)).await;
        paces.of(&user(Some(1 << 20))).unwrap();
        assert_eq!(paces.by_key.lock().unwrap().len(), 1);
        let faster = User { limits: Limits { rate: Some(1 << 30), ..Limits::default() }, ..alice };
        assert_eq!(paces.of(&faster).unwrap().rate(), 1 << 30);
    }
}
