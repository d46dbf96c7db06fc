/*
 * What Kestrel's clients call on port 2229: framed transport, binary protocol. Written for this project; the server reads
 * it when it starts, and clients can be generated from it. docs/kestrel-protocols.md says what each call does.
 *
 * A number that a client knows must not change: fields are only added.
 */

namespace py kestrel

/* An item that was handed out. */
struct Item {
  1: binary data
  2: i64 id    /* for confirm and abort; 0: it needs neither */
}

/* A queue, as it is now. */
struct QueueInfo {
  1: optional binary head_item
  2: i64 items              /* that wait */
  3: i64 bytes              /* of these */
  4: i64 journal_bytes      /* of its records on disk */
  5: i64 age                /* of the head, in milliseconds */
  6: i32 waiters            /* clients that wait for an item */
  7: i32 open_transactions  /* items that are open */
}

enum Status {
  NOT_CONFIGURED = 0
  QUIESCENT = 1
  READ_ONLY = 2
  UP = 3
}

/* What has become of an item with a key. */
enum PutResult {
  REFUSED = 0    /* there is no room, or the queue takes nothing at present */
  DONE = 1
  KEY_TAKEN = 2  /* an item with this key is in the queue: nothing was put */
}

/* What a queue does not do until the pause ends. */
enum Pause {
  NOTHING = 0
  PUTS = 1   /* it takes no items */
  GETS = 2   /* it hands none out */
  BOTH = 3
}

/* The items of a queue as jobs, now; failures and dead letters since the server started. */
struct JobsInfo {
  1: i64 ready
  2: i64 delayed
  3: i64 buried
  4: i64 reserved       /* open */
  5: i64 failures
  6: i64 dead_lettered
  7: i64 set_aside    /* those of all the above that lie beside the line */
  8: Pause paused
}

service Kestrel {
  i32 put(1: string queue_name, 2: list<binary> items, 3: i32 expiration_msec = 0)
  list<Item> get(1: string queue_name, 2: i32 max_items, 3: i32 timeout_msec = 0, 4: i32 auto_abort_msec = 0)
  i32 confirm(1: string queue_name, 2: set<i64> ids)
  i32 abort(1: string queue_name, 2: set<i64> ids)
  QueueInfo peek(1: string queue_name)
  void flush_queue(1: string queue_name)
  void flush_all_queues()
  void delete_queue(1: string queue_name)
  Status current_status()
  void set_status(1: Status status)
  string get_version()

  /* Jobs */
  i32 put_jobs(1: string queue_name, 2: list<binary> items, 3: i32 expiration_msec = 0,
               4: i64 delay_msec = 0, 5: i64 priority = 1024, 6: i64 ttr_msec = 0)
  PutResult put_unique(1: string queue_name, 2: binary key, 3: binary item, 4: i32 expiration_msec = 0,
                       5: i64 delay_msec = 0, 6: i64 priority = 1024, 7: i64 ttr_msec = 0)
  list<Item> get_jobs(1: string queue_name, 2: i32 max_items, 3: i32 timeout_msec = 0, 4: i32 ttr_msec = 0)
  i32 touch(1: string queue_name, 2: set<i64> ids, 3: i32 ttr_msec = 0)
  i32 abort_later(1: string queue_name, 2: set<i64> ids, 3: i64 delay_msec = -1, 4: i64 priority = -1)
  i32 reject(1: string queue_name, 2: set<i64> ids)
  i32 kick(1: string queue_name, 2: i32 max_items)
  void pause(1: string queue_name, 2: Pause what, 3: i64 duration_msec = 0)
  JobsInfo peek_jobs(1: string queue_name)
}
