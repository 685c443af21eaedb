// The join of benchmarks/peer_job.py in Kafka Streams: exactly once, RocksDB with a changelog, a commit every 50 ms.
// It keeps each key's touches and emits linear, first and last credit on a conversion. It removes no duplicates, joins
// no identities, looks at no windows, and keeps nothing that SQL can ask. Prints one line of JSON at its end.

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public final class StreamsPeer {
    private static final int FRAMING_BYTES = 10;
    private static final int MOST_TOUCHES = 200;
    private static final String STORE = "touches";
    private static final AtomicLong seen = new AtomicLong();
    private static final CountDownLatch done = new CountDownLatch(1);
    private static volatile long startedNanos;
    private static volatile long startedCpuNanos;
    private static long records;

    private static long cpuNanos() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    /** Keeps a touch, or answers a conversion. The touches of a key: time, length of the channel, channel, and so on. */
    private static final class Credit implements Processor<byte[], byte[], byte[], byte[]> {
        private final Map<ByteBuffer, GenericDatumReader<GenericRecord>> readers;
        private ProcessorContext<byte[], byte[]> context;
        private KeyValueStore<byte[], byte[]> store;
        private BinaryDecoder decoder;
        private GenericRecord reused;

        Credit(Map<ByteBuffer, GenericDatumReader<GenericRecord>> readers) {
            this.readers = readers;
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            this.store = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            long count = seen.incrementAndGet();
            if (count == 1) {
                startedNanos = System.nanoTime();
                startedCpuNanos = cpuNanos();
            }
            byte[] value = record.value();
            GenericRecord event;
            try {
                decoder = DecoderFactory.get()
                        .binaryDecoder(value, FRAMING_BYTES, value.length - FRAMING_BYTES, decoder);
                event = readers.get(ByteBuffer.wrap(value, 0, FRAMING_BYTES)).read(null, decoder);
            } catch (IOException error) {
                throw new IllegalStateException(error);
            }
            byte[] touches = store.get(record.key());
            if (event.getSchema().getField("channel") != null) {
                byte[] channel = event.get("channel").toString().getBytes(StandardCharsets.UTF_8);
                store.put(record.key(), with(touches, (Long) event.get("occurred_at"), channel));
            } else if (touches != null) {
                String answer = credit(event, touches);
                if (answer != null) {
                    context.forward(record.withValue(answer.getBytes(StandardCharsets.UTF_8)));
                }
            }
            if (count == records) {
                done.countDown();
            }
        }
    }

    private static byte[] with(byte[] touches, long at, byte[] channel) {
        int begin = 0;
        int number = 0;
        if (touches != null) {
            ByteBuffer all = ByteBuffer.wrap(touches);
            while (all.hasRemaining()) {
                all.getLong();
                int length = all.getInt();
                all.position(all.position() + length);
                number++;
                if (number == 1) {
                    begin = all.position();
                }
            }
        }
        int from = number >= MOST_TOUCHES ? begin : 0;
        int kept = touches == null ? 0 : touches.length - from;
        ByteBuffer next = ByteBuffer.allocate(kept + 12 + channel.length);
        if (kept > 0) {
            next.put(touches, from, kept);
        }
        return next.putLong(at).putInt(channel.length).put(channel).array();
    }

    private static String credit(GenericRecord event, byte[] touches) {
        long convertedAt = (Long) event.get("occurred_at");
        long value = (Long) event.get("value_micros");
        ByteBuffer all = ByteBuffer.wrap(touches);
        Map<Long, String> channels = new java.util.TreeMap<>();
        while (all.hasRemaining()) {
            long at = all.getLong();
            byte[] channel = new byte[all.getInt()];
            all.get(channel);
            if (at <= convertedAt) {
                channels.put(at, new String(channel, StandardCharsets.UTF_8));
            }
        }
        if (channels.isEmpty()) {
            return null;
        }
        String[] path = channels.values().toArray(new String[0]);
        Map<String, Double> linear = new LinkedHashMap<>();
        for (String channel : path) {
            linear.merge(channel, (double) value / path.length, Double::sum);
        }
        StringBuilder text = new StringBuilder("{\"conversion_id\":\"").append(event.get("event_id"));
        text.append("\",\"first\":{\"").append(path[0]).append("\":").append(value);
        text.append("},\"last\":{\"").append(path[path.length - 1]).append("\":").append(value).append("},\"linear\":{");
        String comma = "";
        for (Map.Entry<String, Double> each : linear.entrySet()) {
            text.append(comma).append('"').append(each.getKey()).append("\":").append(each.getValue());
            comma = ",";
        }
        return text.append("}}").toString();
    }

    /** Arguments: bootstrap, topic, records, threads, folder of the state, then prefix (hex) and file of each schema. */
    public static void main(String[] arguments) throws Exception {
        records = Long.parseLong(arguments[2]);
        Map<ByteBuffer, GenericDatumReader<GenericRecord>> schemas = new java.util.HashMap<>();
        for (int place = 5; place < arguments.length; place += 2) {
            byte[] prefix = java.util.HexFormat.of().parseHex(arguments[place]);
            schemas.put(ByteBuffer.wrap(Arrays.copyOf(prefix, FRAMING_BYTES)), new GenericDatumReader<>(
                    new Schema.Parser().parse(new java.io.File(arguments[place + 1]))));
        }
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "bench-streams-" + System.nanoTime());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 50);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Integer.parseInt(arguments[3]));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        Topology topology = new Topology();
        topology.addSource("events", Serdes.ByteArray().deserializer(), Serdes.ByteArray().deserializer(), arguments[1]);
        topology.addProcessor("credit", () -> new Credit(schemas), "events");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(
                        Stores.persistentKeyValueStore(STORE), Serdes.ByteArray(), Serdes.ByteArray()), "credit");
        topology.addSink("results", arguments[1] + ".results", Serdes.ByteArray().serializer(),
                Serdes.ByteArray().serializer(), "credit");
        try (KafkaStreams streams = new KafkaStreams(topology, settings)) {
            streams.start();
            done.await();
            long nanos = System.nanoTime() - startedNanos;
            long cpu = cpuNanos() - startedCpuNanos;
            System.out.printf("{\"seconds\": %f, \"cpu_seconds\": %f, \"records\": %d}%n", nanos / 1e9, cpu / 1e9, records);
            System.out.flush();
            Runtime.getRuntime().halt(0);
        }
    }
}
