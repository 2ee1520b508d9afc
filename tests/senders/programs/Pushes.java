import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.InputStreamReader;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/** What the Java programs share: reads the pushes from standard input, and prints each one's answer. */
final class Pushes {
    /** One push by one library: gives {@code answer(status, pushId)}. */
    interface Client {
        String push(String url, Map<String, String> fields) throws Exception;
    }

    /** Makes what pushes: once if connections are kept, else for every push. */
    interface Maker {
        Client make() throws Exception;
    }

    static void run(Maker maker) throws Exception {
        JsonObject input =
                JsonParser.parseReader(new InputStreamReader(System.in, StandardCharsets.UTF_8)).getAsJsonObject();
        boolean kept = input.get("kept").getAsBoolean();
        JsonArray pushes = input.getAsJsonArray("pushes");
        Client client = maker.make();
        for (JsonElement element : pushes) {
            JsonObject push = element.getAsJsonObject();
            Thread.sleep((long) (push.get("pause_seconds").getAsDouble() * 1000));
            String line;
            try {
                line = client.push(push.get("url").getAsString(), fields(push.get("fields")));
            } catch (Exception error) {
                line = "failed " + error;
            }
            System.out.println(line);
            if (!kept) {
                client = maker.make();
            }
        }
        System.out.flush();
        System.exit(0); // whatever threads a library leaves
    }

    static String answer(int status, String pushId) {
        return status + " " + (pushId == null ? "-" : pushId);
    }

    /** The form as text, for the clients that know no forms. */
    static String form(Map<String, String> fields) {
        StringBuilder form = new StringBuilder();
        fields.forEach((name, value) -> form.append(form.length() == 0 ? "" : "&")
                .append(URLEncoder.encode(name, StandardCharsets.UTF_8))
                .append('=')
                .append(URLEncoder.encode(value, StandardCharsets.UTF_8)));
        return form.toString();
    }

    /** Null: the push has no body, its data stand in the URL. */
    private static Map<String, String> fields(JsonElement given) {
        if (given.isJsonNull()) {
            return null;
        }
        Map<String, String> fields = new LinkedHashMap<>();
        given.getAsJsonObject().entrySet().forEach(entry -> fields.put(entry.getKey(), entry.getValue().getAsString()));
        return fields;
    }
}
