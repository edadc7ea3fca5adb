//! A bounded queue between two threads whose reader is woken once for many items: it would sleep again between two that
//! come one after the other, and each wakeup costs more than what the item brings.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Items that wait before the reader is woken in any case.
const MANY: usize = 4;

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

struct Queue<T> {
    most: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that items are put into. Dropping it closes the queue.
pub struct Sender<T>(Arc<Queue<T>>);

/// The end that items come out of, in their order.
pub struct Receiver<T>(Arc<Queue<T>>);

/// A queue of at most `most` items.
pub fn queue<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let state = Mutex::new(State { items: VecDeque::with_capacity(most), closed: false });
    let queue = Arc::new(Queue { most, state, changed: Condvar::new() });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl<T> Sender<T> {
    /// Puts an item in, for a reader that is woken by a few of them, or by [`Sender::wake`]. A full queue wakes it, and gives
    /// the item back; so does one that nobody reads any more.
    pub fn put(&self, item: T) -> Result<(), T> {
        let mut state = self.0.lock();
        let full = state.closed || state.items.len() >= self.0.most;
        let many = full || state.items.len() + 1 >= MANY;
        let result = if full {
            Err(item)
        } else {
            state.items.push_back(item);
            Ok(())
        };
        drop(state);
        if many {
            self.0.changed.notify_one();
        }
        result
    }

    /// Wakes the reader if something waits for it.
    pub fn wake(&self) {
        if self.len() > 0 {
            self.0.changed.notify_one();
        }
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.0.lock().items.len()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
    }
}

impl<T> Receiver<T> {
    /// Waits for the next item; also returns how many wait behind it. `None` once the queue is closed and empty.
    pub fn next(&self) -> Option<(T, usize)> {
        let mut state = self.0.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some((item, state.items.len()));
            }
            if state.closed {
                return None;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_comes_in_its_order_and_then_the_end() {
        let (sender, receiver) = queue(3);
        let reader =
            std::thread::spawn(move || std::iter::from_fn(|| receiver.next()).map(|(n, _)| n).collect::<Vec<_>>());
        for n in 0..1000 {
            let mut item = n;
            while let Err(back) = sender.put(item) {
                item = back;
                std::thread::yield_now();
            }
        }
        drop(sender);
        assert_eq!(reader.join().unwrap(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_takes_nothing() {
        let (sender, receiver) = queue(2);
        assert_eq!((sender.put('a'), sender.put('b'), sender.put('c')), (Ok(()), Ok(()), Err('c')));
        assert_eq!(receiver.next(), Some(('a', 1)));
        assert_eq!((sender.put('c'), sender.len()), (Ok(()), 2));
        assert_eq!(receiver.next(), Some(('b', 1)));
        drop(receiver);
        assert_eq!(sender.put('d'), Err('d'));
    }

    #[test]
    fn few_items_wake_nobody_until_they_are_all_there() {
        let (sender, receiver) = queue(64);
        let (tell, told) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            std::iter::from_fn(|| receiver.next()).for_each(|item| tell.send(item).unwrap())
        });
        // It may not yet have begun to wait; then it takes the first one without being woken.
        std::thread::sleep(Duration::from_millis(50));
        (0..MANY - 1).for_each(|n| sender.put(n).unwrap());
        assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
        sender.wake();
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok((0, MANY - 2)));
        drop(sender);
        reader.join().unwrap();
    }
}
