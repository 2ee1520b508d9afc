import java.util.Map;
import okhttp3.FormBody;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.RequestBody;
import okhttp3.Response;

/** Pushes by OkHttp. */
public final class OkHttp {
    public static void main(String[] args) throws Exception {
        Pushes.run(() -> {
            OkHttpClient client = new OkHttpClient();
            return (url, fields) -> push(client, url, fields);
        });
    }

    private static String push(OkHttpClient client, String url, Map<String, String> fields) throws Exception {
        RequestBody body = RequestBody.create(null, new byte[0]);
        if (fields != null) {
            FormBody.Builder form = new FormBody.Builder();
            fields.forEach(form::add);
            body = form.build();
        }
        try (Response response = client.newCall(new Request.Builder().url(url).post(body).build()).execute()) {
            response.body().bytes();
            return Pushes.answer(response.code(), response.header("X-Push-Id"));
        }
    }
}
