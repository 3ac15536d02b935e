// What the scenes share: the two official clients behind one face, and a gateway with two simulated
// providers. `primary` serves the model "big", `spare` the model "small"; both repeat what they are
// asked to say.

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { startGateway, startSim } from "./processes.mjs";

export const WORD_COUNT = 60;

// Different words, so that one that is missing, or there twice, shows.
export const words = (from = 1, to = WORD_COUNT) =>
  Array.from({ length: to - from + 1 }, (_, index) => `word${from + index}`).join(" ");

// ---- clients ------------------------------------------------------------------------------------

const QUIET = { maxRetries: 0, timeout: 20000, logLevel: "off" };

const request = (stream) => ({
  model: "any", max_tokens: 500, stream, messages: [{ role: "user", content: words() }],
});

// Each: `ask(client, seen)` streams or not as `seen.stream` says, and fills `seen` as the answer
// comes: text, models (all that were named), headers.
export const APIS = [
  {
    name: "openai",
    APIError: OpenAI.APIError,
    BadRequestError: OpenAI.BadRequestError,
    RateLimitError: OpenAI.RateLimitError,
    leadEvents: 1, // before the first word
    make: (port) => new OpenAI({
      baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "sk-client", ...QUIET,
    }),
    async ask(client, seen) {
      const { data, response } = await client.chat.completions
        .create(request(seen.stream)).withResponse();
      seen.headers = response.headers;
      for await (const chunk of seen.stream ? data : [data]) {
        const choice = chunk.choices[0];
        seen.models.add(chunk.model);
        seen.text += (seen.stream ? choice?.delta?.content : choice.message.content) ?? "";
        seen.ids.add(chunk.id);
        seen.finish = choice?.finish_reason ?? seen.finish;
      }
    },
    finished: "stop",
  },
  {
    name: "anthropic",
    APIError: Anthropic.APIError,
    BadRequestError: Anthropic.BadRequestError,
    RateLimitError: Anthropic.RateLimitError,
    leadEvents: 3,
    make: (port) => new Anthropic({
      baseURL: `http://127.0.0.1:${port}`, apiKey: "sk-client", ...QUIET,
    }),
    async ask(client, seen) {
      const { data, response } = await client.messages.create(request(seen.stream)).withResponse();
      seen.headers = response.headers;
      if (!seen.stream) {
        seen.models.add(data.model);
        seen.text = data.content[0].text;
        seen.finish = data.stop_reason;
        return;
      }
      for await (const event of data) {
        if (event.type === "message_start") {
          seen.models.add(event.message.model);
          seen.ids.add(event.message.id);
        }
        if (event.type === "content_block_delta") seen.text += event.delta.text;
        if (event.type === "message_delta") seen.finish = event.delta.stop_reason;
      }
    },
    finished: "end_turn",
  },
];

// One request; what had come by the time it failed is in `error.seen`.
export async function ask(api, client, stream = true) {
  const seen = { stream, text: "", models: new Set(), ids: new Set(), finish: null };
  const since = performance.now();
  try {
    await api.ask(client, seen);
  } catch (error) {
    error.seen = seen;
    throw error;
  } finally {
    seen.ms = performance.now() - since;
  }
  return seen;
}

// ---- gateways -----------------------------------------------------------------------------------

const SIM = ["--mode", "echo", "--max-num-seqs", "64"];

export const startPrimary = (...flags) => startSim(...SIM, "--model", "big", ...flags);
export const startSpare = (...flags) => startSim(...SIM, "--model", "small", ...flags);

// Times are about a thirtieth of those of the scenes.
const LIMITS = 'connect = "1s", head = "500ms", first_token = "300ms", idle = "300ms"';

const config = (primary, spare, { health = "", route = "", targets }) => `return {
  providers = {
    primary = { url = "http://127.0.0.1:${primary.port}/v1", timeouts = { ${LIMITS} }, ${health} },
    spare = { url = "http://127.0.0.1:${spare.port}/v1" },
  },
  routes = { { deadline = "15s", ${route} targets = { ${targets ?? `
    { provider = "primary", model = "big" }, { provider = "spare", model = "small", priority = 1 }`}
  } } },
}`;

// A scene: flags of the two providers, and `health`, `route`, `targets` of the gateway.
export async function startScene(api, { primary = [], spare = [], ...options } = {}) {
  const [first, second] = await Promise.all([startPrimary(...primary), startSpare(...spare)]);
  const gateway = await startGateway(config(first, second, options));
  return { primary: first, spare: second, gateway, client: api.make(gateway.port) };
}

// How many requests a provider has seen.
export async function requestsAt({ port }) {
  const answer = await fetch(`http://127.0.0.1:${port}/admin/stats`);
  return (await answer.json()).requests;
}
