#!/usr/bin/env bash
# pyodide 314.0.7 (Python 3.14 for browsers), in Node.js: what a limit on CPU time is usually built from is missing, or is
# there and does something else. Expected from memory: what time and threading offer on Linux, or an ImportError. Seen:
# time.thread_time is absent; pthread_getcpuclockid is there and raises; process_time counts time that is slept;
# threading imports, and starting a thread raises RuntimeError. sys.monitoring works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --ignore-scripts --no-audit --no-fund "pyodide@314.0.7" >/dev/null
cat > look.mjs <<'JS'
import { loadPyodide } from "pyodide";
const python = await loadPyodide();
await python.runPythonAsync(`
import asyncio, sys, threading, time

print("thread_time:", hasattr(time, "thread_time"))
assert not hasattr(time, "thread_time")
try:
    time.pthread_getcpuclockid(threading.get_ident())
except OSError as error:
    print("pthread_getcpuclockid:", type(error).__name__)
else:
    raise SystemExit("pthread_getcpuclockid works now")
start = time.process_time()
await asyncio.sleep(0.5)
slept = time.process_time() - start
print("process_time over half a second of sleep:", round(slept, 1))
assert slept > 0.4
try:
    threading.Thread(target=int).start()
except RuntimeError as error:
    print("a thread:", error)
else:
    raise SystemExit("threads start now")
seen = []
sys.monitoring.use_tool_id(3, "look")
sys.monitoring.register_callback(3, sys.monitoring.events.PY_START, lambda code, at: seen.append(code.co_name))
sys.monitoring.set_events(3, sys.monitoring.events.PY_START)
(lambda: None)()
sys.monitoring.free_tool_id(3)
print("sys.monitoring saw:", seen[:1])
assert seen[:1] == ["<lambda>"]
`);
JS
node look.mjs
