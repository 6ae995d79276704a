"""Where signals go.

A sink is any object with `async write(signals)`; `async open()` and `async close()` are called where
they exist. Each sink has a task and a bounded queue of its own: one that is slow, stuck or raises
loses its own signals, counted, and no other consumer notices.

The sinks that write JSON write one object a signal, with these keys:

    instrument venue epoch row sequence   which row this is
    state reason                          "valid", or why there is no score
    model model_id score scores           the model's name and which file of it, its first score and all of
                                          them; null and [] where there are none
    ts_event ts_recv ts_out latency_ns    UTC nanoseconds; ts_event is null where the venue gave none
    stage_ns                              nanoseconds by stage
"""
