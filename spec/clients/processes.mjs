// Gateways and simulated providers for the client specs: on free ports, and ended with the spec.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const BINARY = process.env.PERILUNE_BIN;
const POLICIES = process.env.PERILUNE_POLICIES;
const START_TIMEOUT_MS = 10000;

const running = new Set();
const folders = new Set();

process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

// Starts the binary and resolves with the port of its first line, once it listens.
async function start(args, pattern) {
  const child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"] });
  running.add(child);
  let stdout = "";
  let stderr = "";
  child.stderr.on("data", (bytes) => (stderr += bytes));
  const port = await new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`${args[0]} ${why}; it says:\n${stdout}${stderr}`));
    const timer = setTimeout(() => fail("did not listen in time"), START_TIMEOUT_MS);
    child.once("error", (error) => fail(error.message));
    child.once("exit", (status) => fail(`ended with status ${status}`));
    child.stdout.on("data", (bytes) => {
      stdout += bytes;
      const match = stdout.match(pattern);
      if (match) {
        clearTimeout(timer);
        resolve(Number(match[1]));
      }
    });
  });
  return { child, port, stderr: () => stderr };
}

// A simulated provider; `args` as for `perilune sim`.
export function startSim(...args) {
  const port = args.includes("--port") ? [] : ["--port", "0"];
  return start(["sim", ...port, ...args], /perilune sim: listening on \S*:(\d+)/);
}

// A gateway with the given gateway.lua and the shipped default policy.
export async function startGateway(config) {
  const folder = mkdtempSync(join(tmpdir(), "perilune-clients-"));
  folders.add(folder);
  writeFileSync(join(folder, "gateway.lua"), config);
  copyFileSync(join(POLICIES, "fallback.lua"), join(folder, "fallback.lua"));
  const args = ["run", folder, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
  return start(args, /perilune: listening on \S*:(\d+)/);
}

// Ends one at once, as a crash would.
export async function kill({ child }) {
  running.delete(child);
  if (child.exitCode === null && child.signalCode === null) {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}

// Ends all in order; throws when one does not end well.
export async function stopAll() {
  const ends = [...running].map(async (child) => {
    running.delete(child);
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
    if (child.exitCode !== 0) {
      throw new Error(`${child.spawnargs[1]} ended with ${child.exitCode ?? child.signalCode}`);
    }
  });
  const results = await Promise.allSettled(ends);
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  folders.clear();
  const failed = results.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}
