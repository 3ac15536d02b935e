// The official OpenAI client against the real gateway, with simulated providers behind it: what a
// user sees who changes nothing but base_url. The client's own retries are off throughout.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";

import OpenAI from "openai";

import { kill, startGateway, startSim, stopAll } from "./processes.mjs";

const FAST = ["--max-num-seqs", "64"];

const config = (primary, fallback) => `return {
  providers = {
    primary = { url = "http://127.0.0.1:${primary}/v1", key = "sk-primary" },
    fallback = { url = "http://127.0.0.1:${fallback}/v1", key = "sk-fallback" },
  },
  routes = {
    {
      match = { model = { "gpt-4", "text-embedding-3-small" } },
      targets = {
        { provider = "primary", priority = 0 },
        { provider = "fallback", priority = 1 },
      },
      retry = { attempts = 5 },
    },
    { match = { model = "primary-only" }, targets = { { provider = "primary" } } },
  },
}`;

function clientOf(gateway) {
  return new OpenAI({
    baseURL: `http://127.0.0.1:${gateway.port}/v1`,
    apiKey: "sk-client",
    maxRetries: 0,
    timeout: 30000,
  });
}

const ask = (content, more = {}) => ({
  model: "gpt-4",
  messages: [{ role: "user", content }],
  ...more,
});

// Runs `count` calls, `width` at the same time.
async function inParallel(count, width, call) {
  let next = 0;
  const worker = async () => {
    while (next < count) await call(next++);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

describe("a primary that fails three times in ten", () => {
  let client;

  before(async () => {
    const primary = await startSim(
      ...FAST, "--failure-injection-rate", "30", "--failure-types",
      "rate_limit", "invalid_api_key", "context_length", "server_error", "model_not_found",
    );
    const fallback = await startSim(...FAST, "--mode", "echo");
    client = clientOf(await startGateway(config(primary.port, fallback.port)));
  });
  after(stopAll);

  it("answers 100 requests", async () => {
    await inParallel(100, 8, async (index) => {
      const completion = await client.chat.completions.create(ask(`question ${index}`));
      assert.equal(completion.object, "chat.completion");
      assert.equal(completion.choices[0].message.role, "assistant");
      assert.ok(completion.choices[0].message.content.length > 0);
      assert.ok(completion.usage.total_tokens > 0);
    });
  });

  it("streams 100 answers", async () => {
    await inParallel(100, 8, async (index) => {
      const stream = await client.chat.completions.create(
        ask(`question ${index}`, { stream: true, stream_options: { include_usage: true } }),
      );
      let text = "";
      let finish = null;
      let usage = null;
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta?.content ?? "";
        finish = chunk.choices[0]?.finish_reason ?? finish;
        usage = chunk.usage ?? usage;
      }
      assert.ok(text.length > 0);
      assert.ok(finish === "stop" || finish === "length", `finish_reason ${finish}`);
      assert.ok(usage.total_tokens > 0);
    });
  });

  it("makes embeddings", async () => {
    await inParallel(20, 4, async () => {
      const answer = await client.embeddings.create({
        model: "text-embedding-3-small",
        input: ["one", "two"],
        encoding_format: "float",
      });
      assert.equal(answer.data.length, 2);
      assert.equal(typeof answer.data[0].embedding[0], "number");
    });
  });

  it("lists the models of the routes", async () => {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    for (const name of ["gpt-4", "text-embedding-3-small", "primary-only"]) {
      assert.ok(names.includes(name), `${name} in ${names}`);
    }
  });
});

describe("errors", () => {
  let client;

  before(async () => {
    const primary = await startSim(
      ...FAST, "--failure-injection-rate", "100", "--failure-types", "model_not_found",
    );
    const fallback = await startSim(...FAST, "--mode", "echo");
    client = clientOf(await startGateway(config(primary.port, fallback.port)));
  });
  after(stopAll);

  it("are NotFoundError for a model of no route", async () => {
    await assert.rejects(
      client.chat.completions.create(ask("hello", { model: "nobody-has-this" })),
      (error) => {
        assert.ok(error instanceof OpenAI.NotFoundError, `${error}`);
        assert.equal(error.code, "model_not_found");
        assert.ok(error.message.includes("nobody-has-this"), error.message);
        return true;
      },
    );
  });

  it("are the provider's own when no target is left", async () => {
    await assert.rejects(
      client.chat.completions.create(ask("hello", { model: "primary-only" })),
      OpenAI.NotFoundError,
    );
  });

  it("are BadRequestError for a body that is not JSON", async () => {
    await assert.rejects(
      client.post("/chat/completions", {
        body: Buffer.from('{"model": "gpt-4", '),
        headers: { "content-type": "application/json" },
      }),
      OpenAI.BadRequestError,
    );
  });
});

describe("a stream that ends or falls silent before its first word", () => {
  let client;
  let gateway;

  before(async () => {
    const primary = await startSim(
      ...FAST, "--failure-injection-rate", "100", "--failure-types", "slow_first_token", "garbage",
      "empty", "--slow-first-token", "60s", "--garbage-after", "0",
    );
    const fallback = await startSim(...FAST, "--mode", "echo");
    gateway = await startGateway(
      config(primary.port, fallback.port).replace(
        'key = "sk-primary"', 'key = "sk-primary", timeouts = { first_token = "100ms" }'),
    );
    client = clientOf(gateway);
  });
  after(stopAll);

  it("is the next target's, from its beginning", async () => {
    await inParallel(30, 8, async (index) => {
      const { data: stream, response } = await client.chat.completions
        .create(ask(`question ${index}`, { stream: true }))
        .withResponse();
      let text = "";
      const roles = [];
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta?.content ?? "";
        if (chunk.choices[0]?.delta?.role) roles.push(chunk.choices[0].delta.role);
      }
      assert.equal(text, `question ${index}`);
      assert.deepEqual(roles, ["assistant"]);
      assert.equal(response.headers.get("x-perilune-target"), "fallback");
    });
  });
});

describe("a stream that is cut in the middle", () => {
  let client;

  before(async () => {
    const args = [...FAST, "--failure-injection-rate", "100", "--failure-types", "cut"];
    const primary = await startSim(...args, "--cut-after", "3", "--mode", "echo");
    client = clientOf(await startGateway(config(primary.port, primary.port)));
  });
  after(stopAll);

  it("raises an error instead of ending as if it were whole", async () => {
    let text = "";
    await assert.rejects(async () => {
      const stream = await client.chat.completions.create(
        ask("one two three four five six seven eight nine ten", { stream: true }),
      );
      for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
    });
    assert.ok(text.length > 0, "the cut came after the first tokens");
  });
});

describe("a primary that dies", () => {
  let client;
  let primary;

  before(async () => {
    primary = await startSim(...FAST, "--mode", "echo");
    const fallback = await startSim(...FAST, "--mode", "echo");
    client = clientOf(await startGateway(config(primary.port, fallback.port)));
  });
  after(stopAll);

  it("is not noticed in 20 requests", async () => {
    for (let index = 0; index < 20; index++) {
      if (index === 7) await kill(primary);
      const completion = await client.chat.completions.create(ask(`echo ${index}`));
      assert.equal(completion.choices[0].message.content, `echo ${index}`);
    }
  });
});
