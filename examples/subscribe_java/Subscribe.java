import java.io.File;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Prints the newest result of every conversion as it comes.
 *
 * <p>Arguments: the path of schemas/result.avsc, then, optionally, after how many results to stop. Without a schema
 * registry a value is in Avro's single-object encoding, which BinaryMessageDecoder reads. It looks up the writer's
 * schema by fingerprint, so add the files of schemas/published/result from 3.avsc on to read records of earlier
 * versions. Versions 1 and 2 have another layout: they need a decoder of their own, with 2.avsc.
 */
public final class Subscribe {
  public static void main(String[] arguments) throws Exception {
    Schema schema = new Schema.Parser().parse(new File(arguments[0]));
    long most = arguments.length > 1 ? Long.parseLong(arguments[1]) : Long.MAX_VALUE;
    var decoder = new BinaryMessageDecoder<GenericRecord>(GenericData.get(), schema);
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers", java.util.Objects.requireNonNull(System.getenv("KAFKA_BOOTSTRAP_SERVERS"), "set KAFKA_BOOTSTRAP_SERVERS"),
            "group.id", System.getenv().getOrDefault("GROUP", "my-java-team"),
            "isolation.level", "read_committed",
            "auto.offset.reset", "earliest",
            "enable.auto.commit", "false");
    Map<String, Long> newest = new HashMap<>();
    try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
      consumer.subscribe(List.of("attribution.results.v1"));
      for (long seen = 0; seen < most; ) {
        for (var record : consumer.poll(Duration.ofSeconds(1))) {
          seen++;
          if (record.value() == null) { // a tombstone: the conversion was erased
            newest.remove(record.key());
            continue;
          }
          GenericRecord result = decoder.decode(record.value());
          long version = ((Number) result.get("version")).longValue();
          if (version > newest.getOrDefault(record.key(), 0L)) {
            newest.put(record.key(), version);
            System.out.println(record.key() + " v" + version + " " + result.get("net_value_micros"));
          }
        }
        consumer.commitSync();
      }
    }
  }
}
