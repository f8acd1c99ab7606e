/** Announces a service by the service API of NATS (ADR-32), with one endpoint. */

import { headers as newHeaders, nuid, type Msg, type NatsConnection } from "@nats-io/nats-core";

/** An answer of the endpoint that is an error. */
export class ServiceError extends Error {
  constructor(readonly code: number, message: string) {
    super(message);
  }
}

export interface Announcement {
  name: string;
  version: string;
  metadata: Record<string, string>;
  endpoint: { name: string; subject: string; handler: (message: Msg) => Promise<string> };
}

/** Announces a service until the function that it returns is called. */
export function announce(client: NatsConnection, { name, version, metadata, endpoint }: Announcement): () => Promise<void> {
  const identity = { name, id: nuid.next(), version, metadata };
  const started = new Date().toISOString();
  const counts = { num_requests: 0, num_errors: 0, last_error: "", processing_time: 0, average_processing_time: 0 };
  const place = { name: endpoint.name, subject: endpoint.subject, queue_group: "q" };
  const answers: Record<string, () => object> = {
    PING: () => ({ type: "io.nats.micro.v1.ping_response", ...identity }),
    INFO: () => ({ type: "io.nats.micro.v1.info_response", ...identity, description: "", endpoints: [{ ...place, metadata: {} }] }),
    STATS: () => ({ type: "io.nats.micro.v1.stats_response", ...identity, started, endpoints: [{ ...place, ...counts }] }),
  };

  async function answer(message: Msg): Promise<void> {
    const begin = process.hrtime.bigint();
    try {
      message.respond(await endpoint.handler(message));
    } catch (error) {
      counts.num_errors += 1;
      counts.last_error = String(error);
      const headers = newHeaders();
      headers.set("Nats-Service-Error", error instanceof Error ? error.message : String(error));
      headers.set("Nats-Service-Error-Code", String(error instanceof ServiceError ? error.code : 500));
      message.respond("", { headers });
    }
    counts.num_requests += 1;
    counts.processing_time += Number(process.hrtime.bigint() - begin);
    counts.average_processing_time = Math.round(counts.processing_time / counts.num_requests);
  }

  const subscriptions = Object.entries(answers).flatMap(([verb, answer]) =>
    [`$SRV.${verb}`, `$SRV.${verb}.${name}`, `$SRV.${verb}.${name}.${identity.id}`].map((subject) =>
      client.subscribe(subject, { callback: (error, message) => void (error ?? message.respond(JSON.stringify(answer()))) }),
    ),
  );
  const callback = (error: Error | null, message: Msg) => void (error ?? answer(message));
  subscriptions.push(client.subscribe(endpoint.subject, { queue: "q", callback }));
  return async () => {
    await Promise.all(subscriptions.map((subscription) => subscription.drain().catch(() => {})));
  };
}
